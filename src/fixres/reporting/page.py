"""The page: what each section of the template is given, and the file that comes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fixres.errors import UserError
from fixres.io.files import write_text, write_with
from fixres.reporting import charts, sections
from fixres.reporting.analysis import Findings, find
from fixres.reporting.content import content, finite
from fixres.reporting.explanation import why
from fixres.reporting.gallery import apparent_size
from fixres.reporting.headline import headline
from fixres.reporting.number_format import MISSING, count, duration
from fixres.reporting.overview import overview
from fixres.reporting.png import write_pngs
from fixres.reporting.quality import calibration_view, scores_view
from fixres.reporting.reproduce import reproduce
from fixres.reporting.run_record import Record, number, read_run
from fixres.reporting.svg import ROLES

View = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What is known of one run or several; nothing is written before `write_html` and its like are called."""

    findings: tuple[Findings, ...]

    @cached_property
    def views(self) -> View:
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

    def content(self) -> View:
        """Return the content of the page as JSON values."""
        plain: View = finite(content(self.findings))
        return plain

    def write_html(self, out: Path) -> Path:
        """Write the page. Raises UserError when `out` cannot be written."""
        page = _environment().get_template("report.html.j2").render(self.views)
        write_with(out, lambda temporary: temporary.write_text(page, encoding="utf-8"))
        return out

    def write_json(self, out: Path) -> Path:
        """Write the content of the page. Raises UserError when `out` cannot be written."""
        write_text(out, json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n")
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


def _run(found: Findings, position: int) -> View:
    record = found.record
    done = record.last("done") or {}
    return {
        "id": f"run{position + 1}",
        "name": record.name,
        "state": record.state,
        "model": record.model,
        "data": record.section("data").get("uri") or "",
        "seed": record.recipe.get("seed"),
        "train_size": record.train_size,
        "test_size": record.test_size,
        "has_fix": record.has_fix,
        "headline": headline(record),
        "took": duration(done["seconds"]) if number(done.get("seconds")) is not None else "",
        "took_parts": ", ".join(
            f"{event.get('stage')} {duration(event.get('seconds'))}" for event in record.all_of("stage_done")
        ),
        "comparison": _comparison(record),
        "size": _size(record),
        "training": sections.training_charts(record),
        "errors": _errors(found),
        "gallery": found.gallery,
        "scores": scores_view(found.scores),
        "calibration": calibration_view(found.calibration),
        "mistakes": found.mistakes,
        "apparent": apparent_size(record),
        "why": why(record),
        "predictions": _predictions(record),
        "plan": _plan(record),
        "reproduce": reproduce(record),
        "notes": _notes(record),
    }


def _comparison(record: Record) -> View | None:
    comparison = record.comparison
    if comparison is None:
        return None
    swept = record.sweep("before") or {}
    return {
        "split": comparison.split,
        "num_images": comparison.num_images,
        "rows": sections.comparison_rows(comparison),
        "chose_too": record.has_fix and swept.get("split") == comparison.split,
    }


def _size(record: Record) -> View | None:
    curves = sections.size_curves(record)
    if not curves:
        return None
    marks = sections.size_marks(record)
    title = f"Top-1 accuracy of {record.name} against size, {' and '.join(curve.label for curve in curves)}"
    sweep = record.sweep("fixed") or record.sweep("before") or {}
    cost_title = f"Top-1 accuracy of {record.name} against GMACs per picture"
    has_cost = any(result.get("gmacs") for curve in curves for result in curve.results)
    return {
        "split": sweep.get("split"),
        "num_images": sweep.get("num_images"),
        "wide": charts.accuracy_against_size(curves, marks, title, charts.WIDE),
        "narrow": charts.accuracy_against_size(curves, marks, title, charts.NARROW),
        "cost": charts.accuracy_against_cost(curves, marks, cost_title) if has_cost else "",
        "cost_note": sections.cost_note(record),
        "rows": sections.size_rows(record),
        "has_fixed": record.sweep("fixed") is not None,
        "chosen": record.last("chosen"),
    }


def _errors(found: Findings) -> View | None:
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
    worst_first = sorted(rows, key=lambda row: row.recall) if len(rows) > sections.MAX_CLASSES_LISTED else rows
    is_drawn = len(confusion) <= sections.MAX_CLASSES_DRAWN
    title = f"Confusion matrix of {len(confusion)} classes"
    heatmap = charts.confusion_heatmap(confusion, title, names) if is_drawn else ""
    return {
        "split": split,
        "size": size,
        "names": [row.name for row in rows],
        "matrix": [[(c, c / max(1, sum(counts))) for c in counts] for counts in confusion] if is_table else [],
        "heatmap": heatmap,
        "classes": worst_first[: sections.MAX_CLASSES_LISTED],
        "num_classes": len(rows),
        "is_small": len(rows) <= sections.MAX_CLASSES_BESIDE,
        "has_before": before is not None,
        "pairs": sections.most_confused(confusion, names) if len(rows) > 2 else [],
    }


def _predictions(record: Record) -> list[View]:
    rows = []
    for item in record.predictions:
        top = [(str(t["name"]), 100 * float(t["probability"])) for t in item.get("top") or () if "probability" in t]
        if top:
            label = item.get("label")
            rows.append({"path": str(item.get("path", "")), "label": label, "size": item.get("size"), "top": top[:3]})
    return rows


def _plan(record: Record) -> View | None:
    event = record.last("fix")
    if not event:
        return None
    plan = event.get("plan") or {}
    tensors = plan.get("tensors") or []
    num_trained = plan.get("num_trained")
    return {
        "size": event.get("size"),
        "moves": plan.get("moves", MISSING),
        "num_tensors": count(int(plan.get("num_tensors") or len(tensors)), "tensor"),
        "num_trained": f"{int(num_trained if num_trained is not None else plan.get('num_parameters') or 0):,}",
        "num_parameters": f"{int(plan['num_parameters']):,}" if num_trained is not None else "",
        "tensors": tensors,
        "live_norms": plan.get("live_norms") or [],
        "solver_seconds": duration(event.get("solver_seconds")),
    }


def _notes(record: Record) -> list[str]:
    if record.state == "done":
        return record.notes
    return [f"State of the run: {record.state}. The page shows what it has logged so far.", *record.notes]


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fixres", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
