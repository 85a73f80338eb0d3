"""The page: what each section of the template is given, and the file that comes out."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fixres import plots
from fixres.errors import UserError
from fixres.recipes.yamltext import dump
from fixres.report import sections
from fixres.report.formats import MISSING, count, duration, interval, percent, points
from fixres.report.headline import headline, repeats_headline, verdict_of
from fixres.report.pictures import apparent_size, gallery
from fixres.report.record import Record, number, read_run, same_but_for_seed
from fixres.runlog import write_with

View = dict[str, Any]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained HTML page about the run folders `runs` to `out` and return its path.

    The page asks for nothing from outside: styles, charts and pictures are inside it. What a run has not logged yet is
    named as missing. Raises UserError when there is no run, a folder holds none, or `out` cannot be written.
    """
    if not runs:
        raise UserError("no run given\n  fixres report RUN [RUN ...] --out report.html")
    records = [read_run(Path(run)) for run in runs]
    page = _environment().get_template("report.html.j2").render(_page(records))
    write_with(Path(out), lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return Path(out)


def _page(records: Sequence[Record]) -> View:
    views = [_run(record, position) for position, record in enumerate(records)]
    is_single = len(records) == 1
    return {
        "title": records[0].name if is_single else f"{len(records)} runs",
        "roles": {role: fallback for role, (_, fallback) in plots.ROLES.items()},
        "runs": views,
        "is_single": is_single,
        "overview": None if is_single else _overview(records, views),
    }


def _run(record: Record, position: int) -> View:
    done = record.last("done") or {}
    return {
        "id": f"run{position + 1}",
        "name": record.name,
        "state": record.state,
        "model": record.section("model").get("name") or record.product.get("architecture") or "",
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
        "training": [{**chart, "svg": Markup(chart["svg"])} for chart in sections.training_charts(record)],
        "errors": _errors(record),
        "gallery": gallery(record),
        "apparent": apparent_size(record),
        "predictions": _predictions(record),
        "plan": _plan(record),
        "reproduce": _reproduce(record),
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
        "wide": Markup(plots.accuracy_against_size(curves, marks, title, plots.WIDE)),
        "narrow": Markup(plots.accuracy_against_size(curves, marks, title, plots.NARROW)),
        "cost": Markup(plots.accuracy_against_cost(curves, marks, cost_title)) if has_cost else "",
        "cost_note": sections.cost_note(record),
        "rows": sections.size_rows(record),
        "has_fixed": record.sweep("fixed") is not None,
        "chosen": record.last("chosen"),
    }


def _errors(record: Record) -> View | None:
    confusion, before, split, size = sections.confusions(record)
    if not confusion:
        return None
    names = record.classes
    rows = sections.class_rows(confusion, before, names)
    is_table = len(confusion) <= sections.MAX_CLASSES_IN_TABLE
    worst_first = sorted(rows, key=lambda row: row.recall) if len(rows) > sections.MAX_CLASSES_LISTED else rows
    heatmap = "" if is_table else plots.confusion_heatmap(confusion, f"Confusion matrix of {len(confusion)} classes")
    return {
        "split": split,
        "size": size,
        "names": [row.name for row in rows],
        "matrix": [[(c, c / max(1, sum(counts))) for c in counts] for counts in confusion] if is_table else [],
        "heatmap": Markup(heatmap),
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


def _reproduce(record: Record) -> View:
    environment = dict(record.environment)
    command = environment.pop("command", None)
    if isinstance(command, list):
        command = shlex.join(str(word) for word in command)
    return {
        "command": command or "",
        "again": shlex.join(["fixres", "train", str(record.folder / "recipe.yaml"), "--out", "NEW"]),
        "facts": _flat({"seed": record.recipe.get("seed"), **environment}),
        "recipe": dump(dict(record.recipe)) if record.recipe else "",
    }


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: " if key != "versions" else "")
        elif isinstance(value, list):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value is not None and value != "":
            rows.append((name, str(value)))
    return rows


def _notes(record: Record) -> list[str]:
    if record.state == "done":
        return record.notes
    return [f"State of the run: {record.state}. The page shows what it has logged so far.", *record.notes]


def _overview(records: Sequence[Record], views: Sequence[View]) -> View:
    is_repeat = same_but_for_seed(records)
    curves = sections.run_curves(records, is_repeat)
    title = "Top-1 accuracy against size of " + ", ".join(record.name for record in records)
    return {
        "headline": repeats_headline(records) if is_repeat else None,
        "is_repeat": is_repeat,
        "means": _means(records) if is_repeat else [],
        "rows": [_overview_row(record, view) for record, view in zip(records, views, strict=True)],
        "wide": Markup(plots.accuracy_against_size(curves, {}, title, plots.WIDE)) if curves else "",
        "narrow": Markup(plots.accuracy_against_size(curves, {}, title, plots.NARROW)) if curves else "",
    }


def _means(records: Sequence[Record]) -> list[str]:
    """Return mean and standard deviation of each accuracy and of the paired difference, where every run has them."""
    comparisons = [record.comparison for record in records]
    columns = [
        [number((c.row(label) or {}).get("top1")) if c else None for c in comparisons] for label in sections.LABELS
    ]
    columns.append([number(c.paired.get("difference")) if c else None for c in comparisons])
    means = []
    for position, column in enumerate(columns):
        known = [value for value in column if value is not None]
        if len(known) < len(records):
            means.append(MISSING)
            continue
        write = percent if position < len(sections.LABELS) else points
        means.append(f"{write(statistics.mean(known))} ± {statistics.stdev(known):.1f}")
    return means


def _overview_row(record: Record, view: View) -> View:
    comparison = record.comparison
    by_label = {str(row.get("label")): row for row in comparison.rows} if comparison else {}
    paired = comparison.paired if comparison else {}
    difference = number(paired.get("difference"))
    done = record.last("done") or {}
    return {
        "id": view["id"],
        "name": record.name,
        "model": view["model"],
        "seed": view["seed"],
        "sizes": " → ".join(str(size) for size in dict.fromkeys((record.train_size, record.test_size)) if size),
        "where": f"{comparison.split}, {comparison.num_images:,}" if comparison else MISSING,
        "top1": [percent(by_label.get(label, {}).get("top1")) for label in sections.LABELS],
        "difference": points(difference) if difference is not None else MISSING,
        "interval": interval(paired.get("ci95"), is_signed=True),
        "verdict": verdict_of(paired),
        "time": duration(done.get("seconds")),
    }


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fixres", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
