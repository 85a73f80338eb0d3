"""Files written whole or not at all, one process at a time, and known beforehand to be writable."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fixres.errors import Notice, UserError


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Names of files are bytes, which Python gives as text with surrogates: they are written as the bytes they are. Other
    text that has no UTF-8 is spelt out.
    """
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = text.encode("utf-8", "backslashreplace")
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_with(path: Path, writer: Callable[[Path], Any]) -> None:
    """Let `writer` fill a temporary file in the same folder, flush it to disk, then put it in place.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    try:
        write_whole(path, writer)
    except OSError as error:
        raise cannot_write(path, error) from error
    except RuntimeError as error:
        # What torch.save makes of a disk that ends in the middle of a file.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise cannot_write(path, OSError(errno.ENOSPC, "the disk is full, or the file would be too large")) from error


def write_whole(path: Path, writer: Callable[[Path], Any]) -> None:
    """Do what `write_with` does for callers who have words of their own for a full disk.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    if is_special(path):
        _pour(path, writer)
        return
    if path.is_symlink():
        # What it points to is written, and the link stays one.
        path = path.resolve()
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made here first: its mode is what the umask and the folder's default rules give, and some libraries' is not.
        with temporary.open("xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        writer(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            temporary.chmod(mode)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Return whether what lies there is a device, a pipe or a socket, as /dev/stdout is: written to, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _pour(path: Path, writer: Callable[[Path], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        writer(whole)
        with whole.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


_LONGEST_NAME = 255
"""Bytes of a file name on the file systems of Linux."""


def shortened(name: str, ending: str) -> str:
    """Return a file name that is no longer than names may be: `name`, cut where it must be, and `ending`."""
    return os.fsencode(name)[: _LONGEST_NAME - len(os.fsencode(ending))].decode("utf-8", "ignore") + ending


def temporary_beside(path: Path) -> Path:
    """Return an unused name beside `path`, no longer than names may be, that `remove_leftovers` recognises.

    It ends in random letters and not in the process's number: two containers that write into one folder both have
    number 1.
    """
    return path.with_name(shortened(f".{path.name}", f".{secrets.token_hex(4)}.part"))


_LEFTOVER = re.compile(r"\..+\.(\d+|[0-9a-f]{8})\.part")
"""Names of `temporary_beside`, and of version 0.1.0, which ended in the number of the process."""


def remove_leftovers(folder: Path) -> int:
    """Remove what writers that were killed left in a folder, and return how many files that were.

    Only for a folder that no other process writes to.
    """
    with contextlib.suppress(OSError):
        found = [path for path in folder.iterdir() if _LEFTOVER.fullmatch(path.name) and path.is_file()]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)
    return 0


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for people of a file that cannot be written."""
    advice = "a shorter name is needed" if error.errno == errno.ENAMETOOLONG else "make room, or name another place"
    return UserError(f"cannot write {path}: {error.strerror or error}\n  {advice} with --out")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder reach the disk; Windows has no such call.

    Some network file systems refuse it for folders: the files are in place, so that costs a warning, once for a folder.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _say_unsynced(folder, error.strerror or str(error))
    finally:
        os.close(descriptor)


@functools.cache
def _say_unsynced(folder: Path, reason: str) -> None:
    warnings.warn(
        f"{folder}: this file system cannot flush folders ({reason}); a file just written may be lost with its power",
        Notice,
        stacklevel=4,
    )


def require_writable_file(path: Path) -> None:
    """Refuse a file that could not be written; nothing is left behind.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if not is_special(path):
        _try_folder(path.parent, path)


def require_writable_folder(path: Path) -> None:
    """Make a folder, or refuse one in which nothing could be written.

    Raises:
        UserError: it is a file, or cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give the name of a folder")
    _try_folder(path, path)


def require_room(folder: Path, num_bytes: int, what: str) -> None:
    """Refuse work whose result does not fit on the disk of an existing folder.

    Raises:
        UserError: fewer than `num_bytes` are free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(
            f"{what} need {_bytes(num_bytes)}, the disk of {folder} has {_bytes(free)} free\n"
            "  make room, or name a place on another disk with --out"
        )


def _try_folder(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".fixres-")
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}\n  name another place with --out") from error


def _bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,} bytes"


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Let only one process make `out`."""
    lock = FileLock(out.with_name(out.name + ".part.lock"), timeout=0)
    with disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is preparing {out}\n  wait for it, or use another --out") from None
    try:
        yield
    finally:
        # Whoever waits for this file finds `out` made or nothing begun, whether it holds the old lock or a new one.
        if not out.with_name(out.name + ".part").exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def disk(part: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {part.parent} is full\n  what is done is kept; make room, and the same command goes on"
            ) from error
        where = error.filename or part
        raise UserError(
            f"{where} cannot be written or read ({error.strerror or error})\n  use another --out"
        ) from error


def files(root: Path) -> Iterator[Path]:
    """Yield every file below `root`, in no order."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder) / name


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, or None when there is no such file.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error})\n  delete it, and what it stands for, to start over"
        ) from None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
