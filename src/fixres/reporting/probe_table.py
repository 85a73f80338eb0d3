"""What `train PHOTOS` tried before it trained: networks, sizes and crops on frozen features."""

from __future__ import annotations

import json
from pathlib import Path

from fixres.errors import counted
from fixres.reporting.number_format import MISSING, figures, percent
from fixres.reporting.run_record import Json, number
from fixres.training.probe import CHOICES


def tried(folder: Path) -> Json | None:
    """Return what RUN/choices.json says of the probe; None where a recipe had chosen already."""
    try:
        found = json.loads((folder / CHOICES).read_text(encoding="utf-8"))
        probe = found["probe"]
        return {
            "rows": list(probe["rows"]),
            "chosen": dict(probe.get("chosen") or probe["cheapest"]),
            "why": str(probe["why"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tried_view(found: Json | None) -> Json | None:
    """Return what the section shows: a row for each cell that was measured, and how many were not."""
    if found is None:
        return None
    measured = [row for row in found["rows"] if number(row.get("loss")) is not None]
    left = len(found["rows"]) - len(measured)
    rows = [
        {
            "title": str(row.get("network")),
            "is_chosen": _key(row) == _key(found["chosen"]),
            "cells": [
                str(row.get("size")),
                figures(row.get("crop_ratio")),
                f"{row.get('n') or 0:,}",
                percent(row.get("top1")),
                f"{row['loss']:.4f}",
                figures(row.get("gmacs")),
                figures(row.get("ms")) if row.get("ms") else MISSING,
            ],
        }
        for row in measured
    ]
    not_run = f" {counted(left, 'more was', 'more were')} not run: no time, or others were better at a smaller size."
    return {"rows": rows, "why": found["why"], "not_run": not_run if left else ""}


def _key(row: Json) -> tuple[object, ...]:
    return row.get("network"), row.get("size"), row.get("crop_ratio")
