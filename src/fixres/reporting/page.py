"""The page: what each section of the template is given, and the file that comes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fixres.errors import UserError, as_text, counted
from fixres.evaluation.metrics import is_uneven
from fixres.evaluation.promises_in_words import promises_in_words
from fixres.io.files import write_text
from fixres.reporting import charts, sections
from fixres.reporting.content import Findings, content, find, finite
from fixres.reporting.explanation import why
from fixres.reporting.gallery import apparent_size
from fixres.reporting.headline import headline, verdict_of
from fixres.reporting.number_format import duration, figures, interval, percent, points
from fixres.reporting.overview import overview
from fixres.reporting.png import write_pngs
from fixres.reporting.probe_table import tried, tried_view
from fixres.reporting.quality import calibration_view, promises, scores_view, written
from fixres.reporting.reproduce import reproduce
from fixres.reporting.run_record import Json, Record, number, read_run
from fixres.reporting.sections import comparison_rows, milliseconds, row_note, row_title
from fixres.reporting.shipping_table import shipping, shipping_view
from fixres.reporting.svg import ROLES

_IN_TEMPLATES = (
    comparison_rows,
    counted,
    duration,
    figures,
    interval,
    milliseconds,
    number,
    percent,
    points,
    row_note,
    row_title,
    verdict_of,
    written,
)


@dataclass(frozen=True)
class Report:
    """What is known of one run or several; nothing is written before `write_html` and its like are called."""

    findings: tuple[Findings, ...]

    @cached_property
    def views(self) -> Json:
        """What the template and the pictures are given."""
        views = [_run(found, position) for position, found in enumerate(self.findings)]
        records = [found.record for found in self.findings]
        is_single = len(records) == 1
        answers = [found.answers for found in self.findings]
        return {
            "title": records[0].name if is_single else f"{len(records)} runs",
            "roles": {role: fallback for role, (_, fallback) in ROLES.items()},
            "runs": views,
            "is_single": is_single,
            "overview": None if is_single else overview(records, answers, [view["id"] for view in views]),
        }

    def content(self) -> Json:
        """Return the content of the page as JSON values."""
        plain: Json = finite(content(self.findings))
        return plain

    def to_json(self) -> str:
        """Return the content of the page as text."""
        return json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n"

    def write_html(self, out: Path) -> Path:
        """Write the page. Raises UserError when `out` cannot be written."""
        page = _environment().get_template("report.html.j2").render(self.views)
        write_text(out, as_text(page))
        return out

    def write_json(self, out: Path) -> Path:
        """Write the content of the page. Raises UserError when `out` cannot be written."""
        write_text(out, self.to_json())
        return out

    def write_png(self, folder: Path) -> list[Path]:
        """Write every chart and every sheet of pictures. Raises UserError when `folder` cannot be written."""
        return write_pngs(self.views, folder)


def read_report(runs: Sequence[Path]) -> Report:
    """Read run folders and work out what there is to say.

    Raises:
        UserError: there is no run, or a folder holds none.
    """
    if not runs:
        raise UserError("no run given\n  fixres report RUN [RUN ...] --out report.html")
    records = [read_run(Path(run)) for run in runs]
    return Report(tuple(find(record, len(records)) for record in records))


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained HTML page about the run folders `runs` to `out` and return its path.

    The page asks for nothing from outside: styles, charts and pictures are inside it. What a run has not logged yet is
    named as missing. Raises UserError when there is no run, a folder holds none, or `out` cannot be written.
    """
    return read_report(runs).write_html(Path(out))


def _run(found: Findings, position: int) -> Json:
    record = found.record
    return {
        "id": f"run{position + 1}",
        "record": record,
        "headline": headline(record),
        "size": _size(record),
        "shipping": shipping_view(shipping(record)),
        "elsewhere": record.last("elsewhere"),
        "tried": tried_view(tried(record.folder)),
        "training": sections.training_charts(record),
        "errors": _errors(found),
        "gallery": found.gallery,
        "scores": scores_view(found.scores, len(record.classes)),
        "is_uneven": is_uneven(record.imbalance),
        "calibration": calibration_view(found.calibration),
        "promises": list(promises_in_words(kept)) if (kept := promises(record)) else [],
        "mistakes": found.mistakes,
        "pictures": found.pictures,
        "apparent": apparent_size(record),
        "why": why(record),
        "predictions": _predictions(record),
        "reproduce": reproduce(record),
    }


def _size(record: Record) -> Json | None:
    curves = sections.size_curves(record)
    if not curves:
        return None
    marks = sections.size_marks(record)
    title = f"Top-1 accuracy of {record.name} against size, {' and '.join(curve.label for curve in curves)}"
    cost_title = f"Top-1 accuracy of {record.name} against GMACs per picture"
    has_cost = any(result.get("gmacs") for curve in curves for result in curve.results)
    return {
        "sweep": record.sweep("fixed") or record.sweep("before") or {},
        "wide": charts.accuracy_against_size(curves, marks, title, charts.WIDE),
        "narrow": charts.accuracy_against_size(curves, marks, title, charts.NARROW),
        "cost": charts.accuracy_against_cost(curves, marks, cost_title) if has_cost else "",
        "cost_note": sections.cost_note(record),
        "rows": sections.size_rows(record),
        "has_before": record.sweep("before") is not None,
        "has_fixed": record.sweep("fixed") is not None,
    }


def _errors(found: Findings) -> Json | None:
    record = found.record
    confusion, before, split, size = sections.confusions(record)
    if not confusion and found.answers is not None and record.comparison is not None:
        # More classes than the log holds a matrix of: recounted from the table of answers.
        confusion, before = found.answers.confusion(found.answers.final), None
        split, size = record.comparison.split, record.test_size or 0
        if found.answers.before is not None:
            before = found.answers.confusion(found.answers.before)
    if not confusion:
        return None
    names = record.classes
    rows = sections.class_rows(confusion, before, names)
    is_table = len(confusion) <= sections.MAX_CLASSES_IN_TABLE
    worst_first = sorted(rows, key=lambda row: row["recall"]) if len(rows) > sections.MAX_CLASSES_LISTED else rows
    is_drawn = len(confusion) <= sections.MAX_CLASSES_DRAWN
    title = f"Confusion matrix of {len(confusion)} classes"
    heatmap = charts.confusion_heatmap(confusion, title, names) if is_drawn else ""
    return {
        "split": split,
        "size": size,
        "names": [row["name"] for row in rows],
        "matrix": [[(c, c / max(1, sum(counts))) for c in counts] for counts in confusion] if is_table else [],
        "heatmap": heatmap,
        "classes": worst_first[: sections.MAX_CLASSES_LISTED],
        "num_classes": len(rows),
        "is_small": len(rows) <= sections.MAX_CLASSES_BESIDE,
        "has_before": before is not None,
        "pairs": sections.most_confused(confusion, names) if len(rows) > 2 else [],
    }


def _predictions(record: Record) -> list[Json]:
    rows = []
    for item in record.predictions:
        top = [(str(t["name"]), 100 * float(t["probability"])) for t in item.get("top") or () if "probability" in t]
        if top:
            rows.append({"path": str(item.get("path", "")), "label": item.get("label"), "top": top[:3]})
    return rows


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fixres", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {function.__name__: function for function in _IN_TEMPLATES}
    return environment
