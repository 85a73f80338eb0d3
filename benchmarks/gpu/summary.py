"""The table of what was measured, what failed and why, and what is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Measurement, Scale
from fixres.io.files import write_text

COLUMNS = {"images_per_second": ("images/s", 0), "peak_gib": ("peak GPU GiB", 2), "host_ms": ("host ms/step", 1)}


def result_file(out: Path, name: str) -> Path:
    """Return where a measurement's own result lies."""
    return out / "results" / f"{name}.json"


def read_result(out: Path, one: Measurement, scale: Scale) -> dict[str, Any] | None:
    """Return what was found or why it failed, or None where it has no result, or one of other settings."""
    file = result_file(out, one.name)
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    # Tuples come back as lists.
    return found if found["settings"] == json.loads(json.dumps(one.settings(scale))) else None


def summarise(out: Path, wanted: Sequence[Measurement], scale: Scale) -> str:
    """Write summary.json and summary.md, and return the table."""
    lines = ["| measurement | " + " | ".join(title for title, _ in COLUMNS.values()) + " | | took, s |"]
    lines.append("| --- " * (len(COLUMNS) + 3) + "|")
    rows = []
    for one in wanted:
        found = read_result(out, one, scale) or {"status": "not done"}
        rows.append({"name": one.name, **{key: found[key] for key in ("status", "error", "seconds") if key in found}})
        figures = found.get("figures", {})
        rows[-1] |= figures
        cells = [_number(figures.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        text = figures["note"] if figures else f"**{found['status']}** {found.get('error', '')}".strip()
        lines.append(f"| {' | '.join([one.name, *cells, text.replace('|', '/'), _number(found.get('seconds'), 0)])} |")
    table = "\n".join(lines) + "\n"
    write_text(out / "summary.json", json.dumps(rows, indent=1) + "\n")
    write_text(out / "summary.md", table)
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
