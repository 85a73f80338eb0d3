"""Errors meant for people: what was given, what is allowed, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_USER_ERROR = 2


class UserError(Exception):
    """A mistake of the user's. The command line prints the message alone and exits with 2."""


def printable(text: str) -> str:
    """Return text with control characters other than line ends spelt out: names in foreign files may hold any."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest of `allowed`, or an empty string when none is close."""
    close = difflib.get_close_matches(given.lower(), {name.lower(): name for name in allowed}, n=1, cutoff=0.6)
    by_lower = {name.lower(): name for name in allowed}
    return f" - did you mean '{by_lower[close[0]]}'?" if close else ""


def require_extra(package: str, extra: str) -> UserError:
    """Return the error for a missing optional `package`, naming the pip line that installs `extra`."""
    return UserError(f"this needs the package '{package}', which is not installed\n  pip install 'fixres[{extra}]'")
