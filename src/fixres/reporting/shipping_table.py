"""What a run could have shipped: every candidate on the selecting split, and why one of them ships."""

from __future__ import annotations

from fixres.errors import counted
from fixres.reporting.number_format import MISSING, figures, percent
from fixres.reporting.run_record import Json, Record, number
from fixres.reporting.sections import row_title

WHAT = {
    "probe": "a head solved on the network the run started from",
    "trained": "the network as its last training stage left it",
    "fixed": "the network after the fix",
}
"""What a candidate of each kind is."""
_RULE = (
    "The cheapest probe ships unless the loss of another is lower by more than one standard error of the difference; "
    "of those, the lowest, or one as good that is cheaper. Every candidate has its own temperature; the loss after it "
    "is that of every fifth of the pictures at the temperature of the others. Nothing else is cross-validated."
)


def shipping(record: Record) -> Json | None:
    """Return the table of candidates as it was logged; None where the last stage's network ships unasked."""
    event = record.last("candidates")
    if not event or not event.get("candidates"):
        return None
    return {key: event.get(key) for key in ("split", "num_images", "candidates")}


def shipping_view(found: Json | None) -> Json | None:
    """Return what the section shows: a caption, a row for each candidate, and the rule."""
    if found is None:
        return None
    rows = [
        {
            "title": row_title(str(row.get("label"))),
            "what": WHAT.get(str(row.get("kind")), ""),
            "is_shipped": bool(row.get("is_shipped")),
            "cells": [
                str(row.get("size")),
                percent(row.get("top1")),
                _nats(row.get("loss")),
                _nats(row.get("loss_calibrated")),
                figures(row.get("temperature")),
                _difference(row),
                figures(row.get("gmacs")),
            ],
        }
        for row in found["candidates"]
    ]
    return {"where": counted(int(found["num_images"] or 0), f"{found['split']} picture"), "rows": rows, "rule": _RULE}


def _nats(value: object) -> str:
    known = number(value)
    return MISSING if known is None else f"{known:.4f}"


def _difference(row: Json) -> str:
    gap, error = number(row.get("difference")), number(row.get("standard_error"))
    if gap is None or gap == error == 0:
        return MISSING
    return f"{gap:+.4f}" + (f" ± {error:.4f}" if error is not None else "")
