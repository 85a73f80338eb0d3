"""Predictions as text: for people, for programs, for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from fixres.errors import printable
from fixres.predict import Prediction


def _as_table(predictions: Sequence[Prediction]) -> str:
    lines = []
    for p in predictions:
        lines.append(p.path + (f"  cannot be read: {p.error}" if p.error else ""))
        lines += [
            f"  {printable(name).replace(chr(10), ' '):<72} ({100 * share:5.2f} %)"
            for name, (_, share) in zip(p.said, p.top, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _as_csv(predictions: Sequence[Prediction]) -> str:
    width = max((len(p.top) for p in predictions), default=1) or 1
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [column for i in range(1, width + 1) for column in (f"name{i}", f"probability{i}")]
    writer.writerow(["path", "size", *names, "error"])
    for p in predictions:
        cells = [cell for name, probability in p.top for cell in (name, f"{probability:.6f}")]
        writer.writerow([p.path, p.size, *cells, *[""] * (2 * width - len(cells)), p.error])
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Sequence[Prediction]], str]] = {
    "table": _as_table,
    "json": lambda found: json.dumps([p.as_dict() for p in found], indent=2) + "\n",
    "jsonl": lambda found: "".join(json.dumps(p.as_dict()) + "\n" for p in found),
    "csv": _as_csv,
}
"""Text of a list of predictions, by the name of --format."""
