"""Errors meant for people: what was given, what is allowed, what to type next."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from importlib import metadata

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75


class UserError(Exception):
    """A mistake of the user's. The command line prints the message alone and exits with 2."""


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop and is saved
    """A signal stopped the work at a place it can go on from. The command line exits with 75."""


class Notice(UserWarning):
    """Something users should know that stops nothing. The command line prints the message alone."""


_MACHINE_SAYS = {
    errno.EMFILE: "too many files are open\n  raise the limit (ulimit -n 4096), or use fewer workers",
    errno.ENFILE: "this machine has as many files open as it can have",
    errno.ENOSPC: "the disk is full\n  make room",
    errno.EDQUOT: "the quota of this user on the disk is used up\n  make room",
}


def explain_os_error(error: OSError) -> UserError | None:
    """Return the error for people of what the operating system refused; None where that looks like a bug of ours.

    Anything with a number that names a file is the machine's word: permission denied, too many links, a dead disk.
    """
    if error.errno is None or (error.filename is None and error.errno not in _MACHINE_SAYS):
        return None
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return UserError(where + _MACHINE_SAYS.get(error.errno, (error.strerror or str(error)).lower()))


def fixres_version() -> str:
    """Return the installed version, or "0+checkout" where nobody installed one, as in what torch.hub fetches."""
    try:
        return metadata.version("fixres")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def started_rank() -> int:
    """Return the rank torchrun or `fixres slurm` gave this process, 0 for a lone one; needs no process group."""
    return int(os.environ.get("RANK", "0"))


def started_world() -> int:
    """Return how many processes torchrun or `fixres slurm` started, 1 for a lone one; needs no process group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def printable(text: str) -> str:
    """Return text with control characters other than line ends spelt out: names in foreign files may hold any."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in as_text(text))


def on_one_line(text: str) -> str:
    """Return text as `printable` does, line ends spelt out as well: a name in a list of names may hold them too."""
    return printable(text).replace("\n", "\\n")


def as_text(name: str) -> str:
    """Return a name that people can read and every file can hold: bytes that are no UTF-8 are spelt out as \\xe9.

    Names of files are bytes; Python gives those that are no text as surrogates, which nothing can encode.
    """
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest of `allowed`, or an empty string when none is close."""
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6)
    return f" - did you mean '{by_lower[close[0]]}'?" if close else ""


def require_extra(package: str, extra: str) -> UserError:
    """Return the error for a missing optional `package`, naming the pip line that installs `extra`."""
    return UserError(f"this needs the package '{package}', which is not installed\n  pip install 'fixres[{extra}]'")


def seconds_from(variable: str, default: float) -> float:
    """Return the seconds an environment variable gives, `default` where it is not set.

    Raises:
        UserError: it holds no positive number.
    """
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UserError(f"{variable}={text} is no number of seconds above 0\n  for example {variable}={default:g}")
    return seconds


def counted(num: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `counted(1, "picture")` is "1 picture", of 1200 it is "1,200 pictures"."""
    return f"{num:,} {noun if num == 1 else plural or noun + 's'}"
