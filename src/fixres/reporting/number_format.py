"""How numbers are written for people: percent with one decimal, a true minus sign, times in words."""

from __future__ import annotations

from collections.abc import Sequence

from fixres.reporting.run_record import number

MISSING = "–"


def percent(value: object) -> str:
    """Return an accuracy in percent with one decimal, or a dash."""
    known = number(value)
    return MISSING if known is None else f"{known:.1f}"


def points(value: float) -> str:
    """Return a signed difference of two accuracies in percentage points."""
    # The sign is that of the value, not of what rounding leaves: whether an interval contains 0 hangs on it.
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}"


def interval(bounds: Sequence[float] | None, is_signed: bool = False) -> str:
    """Return a 95 % interval as `low to high`, or a dash."""
    if not bounds or len(bounds) != 2 or any(number(bound) is None for bound in bounds):
        return MISSING
    return " to ".join(points(bound) if is_signed else percent(bound) for bound in bounds)


def figures(value: object, digits: int = 3) -> str:
    """Return a number with so many significant figures, or a dash."""
    known = number(value)
    if known is None:
        return MISSING
    return f"{known:,.0f}" if abs(known) >= 10**digits else f"{known:.{digits}g}"


def p_value(value: object) -> str:
    """Return a p-value as people quote it."""
    known = number(value)
    if known is None:
        return MISSING
    return "p < 0.001" if known < 0.001 else f"p = {known:.2g}"


def duration(value: object) -> str:
    """Return seconds as `48 s`, `3 min 5 s` or `2 h 10 min`."""
    known = number(value)
    if known is None:
        return MISSING
    if known < 60:
        return f"{known:.0f} s" if known >= 10 else f"{known:.1f} s"
    seconds = round(known)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
