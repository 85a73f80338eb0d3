"""Fills the published tables from finished runs: ours beside theirs, in Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixres.config.loading import flatten, list_recipes, load
from fixres.config.recipe import Recipe
from fixres.data.prepare.known_sets import SETS
from fixres.data.sampling import published_length
from fixres.errors import UserError
from fixres.experiments.published_tables import ASCEND, TABLES, AscendRow, Figure, Row, Table
from fixres.experiments.seeds import different_keys, last_comparison
from fixres.runtime.run_folder import read_events

IGNORED = ("seed", "output.", "runtime.", "data.uri", "data.workers", "data.hold_gib", "data.license", "model.weights")
IGNORED_IN_TESTS = ("evaluation.sizes", "evaluation.batch_size", "evaluation.every_epochs")
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t for 1 to 10 degrees of freedom."""
_NOTHING = "-"

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a finished run of a shipped recipe measured on its report split."""

    folder: Path
    recipe: str
    seed: int
    num_images: int
    after: Mapping[int, Result]
    """What ships, by size in pixels."""
    before: Mapping[int, Result]
    """Before the fix."""
    raw: Mapping[int, Result]
    """Of the weights that an average was taken of: their own best epoch, or the last where the last ships."""
    size: int
    train_size: int
    fps: float = 0.0
    """Pictures per second of the last epoch of the first stage that had any."""
    epochs: float = 0.0
    """Of that stage."""
    precision: str = ""
    torch: str = ""
    weights: str = ""


def shipped_settings() -> dict[str, dict[str, Any]]:
    """Return what decides the result of every shipped recipe, by name."""
    return {name: _settings(load(name)) for name in list_recipes()}


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of the stages that run and of everything else that decides a result, by dotted key."""
    values = recipe.model_dump(mode="json", exclude={"train", "fix", "stages"})
    found = flatten(values)
    for index, stage in enumerate(recipe.run_stages):
        found.update({f"stage {index + 1}.{key}": value for key, value in stage.model_dump(mode="json").items()})
        if isinstance(stage.epoch_samples, str):
            # As it was written when there were only numbers and multiples.
            found[f"stage {index + 1}.epoch_samples"] = published_length(stage.epoch_samples)[0]
    keys = (*IGNORED, *(IGNORED_IN_TESTS if recipe.evaluation.keep == "last" else IGNORED_IN_TESTS[:2]))
    return {key: value for key, value in found.items() if not key.startswith(keys)}


def read_run(folder: Path, shipped: Mapping[str, Mapping[str, Any]]) -> Ran | str:
    """Return what a run measured, or why it makes no published row: the nearest recipe, and where it differs.

    Raises:
        UserError: no run, or one that has not finished.
    """
    events, comparison = read_events(folder), last_comparison(folder)
    recipe = load(folder / "recipe.yaml")
    own = _settings(recipe)
    differing = {name: different_keys(own, settings) for name, settings in shipped.items()}
    fewest = min(map(len, differing.values()))
    nearest = [name for name, keys in differing.items() if len(keys) == fewest]
    name = _by_pictures(nearest, recipe.data.uri, events)
    if not name:
        return f"its settings are those of {', '.join(nearest)}; call the folder of its pictures as one of them does"
    if differing[name]:
        keys = differing[name]
        more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
        return f"no shipped recipe has these settings; nearest is {name}, different in {', '.join(keys[:4])}{more}"
    after, before = _results(events, comparison)
    environment = _environment(folder)
    size = comparison["rows"][-1]["size"]
    epochs = {e["stage"]: e for e in events if e["event"] == "epoch"}
    first = next(iter(epochs.values()), {})
    return Ran(
        folder=folder,
        recipe=name,
        seed=recipe.seed,
        num_images=comparison["num_images"],
        after=after,
        before=before,
        raw=_raw_results(events, comparison["split"], recipe.evaluation.keep),
        size=size,
        train_size=next((row["size"] for row in comparison["rows"] if row["label"] == "train size"), size),
        fps=first.get("fps", 0.0),
        epochs=first.get("epoch", 0.0),
        precision=str(environment.get("device", "")).partition(", ")[2].partition(",")[0],
        torch=str(environment.get("versions", {}).get("torch", environment.get("torch", ""))),
        weights=recipe.model.weights,
    )


def _by_pictures(names: Sequence[str], uri: str, events: Sequence[Mapping[str, Any]]) -> str:
    """Return which of several recipes a run belongs to that differ in nothing but their pictures; empty: unknown.

    It is the one whose folder is called as the run's, else the one whose data set has as many classes.
    """
    if len(names) == 1:
        return names[0]
    folders = {name: Path(load(name).data.uri.partition(":")[2]).name for name in names}
    by_name = [name for name, folder in folders.items() if folder == Path(uri.partition(":")[2]).name]
    if by_name:
        return by_name[0]
    num_classes = len(next((e["classes"] for e in events if e["event"] == "start"), ()))
    by_classes = [n for n, folder in folders.items() if folder in SETS and SETS[folder].num_classes == num_classes]
    return by_classes[0] if len(by_classes) == 1 else ""


def _results(
    events: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]
) -> tuple[dict[int, Result], dict[int, Result]]:
    """Return results by size of what ships and of what was before a fix, those of the comparison last."""
    has_fix = any(row["label"] == "fixed" for row in comparison["rows"])
    after: dict[int, Result] = {}
    before: dict[int, Result] = {}
    for event in events:
        if event["event"] == "sweep" and event["split"] == comparison["split"]:
            into = before if has_fix and event["label"] == "before" else after
            into.update({row["size"]: row for row in event["results"]})
    for row in comparison["rows"]:
        if row["label"].startswith("probe "):
            continue
        (after if row["label"] in ("fixed", "trained") else before)[row["size"]] = row
    return after, before


def _raw_results(events: Sequence[Mapping[str, Any]], split: str, keep: str) -> dict[int, Result]:
    """Return by size what the raw weights of a run with an average reached on the report split while it trained.

    Nothing where the epochs were measured on another split. Raw and average are followed by themselves, as the project
    that publishes both does: each has its own best epoch.
    """
    found: dict[int, Result] = {}
    for event in events:
        if event["event"] != "eval" or event["split"] != split:
            continue
        for row in event.get("raw_results", ()):
            best = found.get(row["size"])
            if best is None or keep == "last" or row["top1"] > best["top1"]:
                found[row["size"]] = row
    return found


def _environment(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def filled_tables(folders: Sequence[Path], *, everything: bool = False) -> str:
    """Return the published tables in Markdown, ours beside theirs; "-" where nothing was published or run.

    Args:
        folders: finished runs; several seeds of one recipe share its row.
        everything: also tables in which no row was run; without runs these are all.

    Raises:
        UserError: a folder holds no finished run, or two runs of a recipe have the same seed.
    """
    shipped = shipped_settings()
    runs: dict[str, list[Ran]] = {}
    notes: list[str] = []
    for folder in folders:
        found = read_run(folder, shipped)
        if isinstance(found, str):
            notes.append(f"- {folder}: {found}")
            continue
        runs.setdefault(found.recipe, []).append(found)
        notes += _remarks(found)
    for same in runs.values():
        if len({run.seed for run in same}) != len(same):
            raise UserError(f"a seed comes twice: {', '.join(str(run.folder) for run in same)}\n  name every run once")
    everything = everything or not folders
    parts = [_table(table, runs) for table in TABLES if everything or any(_runs_of(row, runs) for row in table.rows)]
    if everything or any(name.startswith("ascend/") for name in runs):
        parts.append(_ascend(runs))
    if notes:
        parts.append("Notes\n\n" + "\n".join(notes) + "\n")
    return "\n".join(parts)


def _remarks(run: Ran) -> Iterable[str]:
    """Yield what sets a run apart from the published row: other pictures, other starting weights."""
    recipe = load(run.recipe)
    known = SETS.get(recipe.data.uri.partition(":")[2])
    published = next((known.counts[s] for s in ("test", "val") if s in known.counts), 0) if known else 0
    if published and published != run.num_images:
        yield f"- {run.folder}: on {run.num_images:,} pictures, the published row is on {published:,}"
    if run.weights != recipe.model.weights:
        yield f"- {run.folder}: starts from {run.weights}, the published row from {recipe.model.weights}"


def _table(table: Table, runs: Mapping[str, Sequence[Ran]]) -> str:
    what = "top-1 error %" if table.is_error else "top-1 %"
    five = what.replace("1", "5")
    header = ["row", "recipe", "px", f"{what}, published", f"{what}, ours", "95 % interval", "n"]
    header += [f"{five}, published", f"{five}, ours", *table.columns]
    rows = [_cells(table, row, figure, _runs_of(row, runs)) for row in table.rows for figure in row.figures]
    return _markdown(table.title, table.source, header, rows)


def _runs_of(row: Row, runs: Mapping[str, Sequence[Ran]]) -> Sequence[Ran]:
    """Return the runs that fill a row; one of raw weights is filled by runs with an average, which log them too."""
    averaged = runs.get(_averaged(row), ()) if row.of == "raw" else ()
    return averaged or runs.get(row.recipe, ())


def _averaged(row: Row) -> str:
    """Return the recipe that trains the weights of a row of raw ones and averages them."""
    return row.recipe.removesuffix("-raw")


def _markdown(title: str, published: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"## {title}", "", f"Published: {published}.", ""]
    for cells in (header, ["---"] * len(header), *rows):
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cells(table: Table, row: Row, figure: Figure, runs: Sequence[Ran]) -> list[str]:
    found = [result for run in runs if (result := _result(run, row, figure)) is not None]
    ours, interval = _summary(found, "top1", table.is_error)
    fives = [result for result in found if result.get("top5") is not None]
    sizes = sorted({result["size"] for result in found})
    num = "" if not found else f"{len(found)} seed{'s' if len(found) > 1 else ''}, {runs[0].num_images:,} pictures"
    return [
        row.label,
        _recipe_cell(row),
        str(figure.size or "/".join(map(str, sizes)) or _NOTHING),
        _percent(figure.top1, table.is_error),
        ours,
        interval,
        num or _NOTHING,
        _percent(figure.top5, table.is_error),
        _summary(fives, "top5", table.is_error)[0],
        *row.more,
    ]


def _recipe_cell(row: Row) -> str:
    if row.of == "raw":
        return f"`{_averaged(row)}`, raw weights"
    return f"`{row.recipe}`" if row.recipe else _NOTHING


def _result(run: Ran, row: Row, figure: Figure) -> Result | None:
    if row.of == "raw":
        return (run.after if run.recipe == row.recipe else run.raw).get(figure.size)
    if row.of == "each" and figure.size != run.size:
        return None
    is_before = row.of == "before"
    return (run.before if is_before else run.after).get(figure.size or (run.train_size if is_before else run.size))


def _percent(value: float | None, is_error: bool) -> str:
    if value is None:
        return _NOTHING
    shown = round(100 - value, 3) if is_error else value
    return f"{shown:.2f}" if is_error else f"{shown:g}" if round(shown, 1) != shown else f"{shown:.1f}"


def _summary(results: Sequence[Result], key: str, is_error: bool) -> tuple[str, str]:
    """Return the mean with its spread over seeds, and a 95 % interval: of the one run's top-1, or over seeds."""
    if not results:
        return _NOTHING, _NOTHING
    values = [100 - result[key] if is_error else result[key] for result in results]
    mean = statistics.fmean(values)
    if len(values) == 1:
        low, high = sorted(100 - bound if is_error else bound for bound in results[0]["top1_ci95"])
        return f"{mean:.2f}", f"{low:.2f} to {high:.2f}"
    std = statistics.stdev(values)
    quantile = _T975[min(len(values) - 2, len(_T975) - 1)]
    half = quantile * std / len(values) ** 0.5
    return f"{mean:.2f} ± {std:.2f}", f"{mean - half:.2f} to {mean + half:.2f}"


def _ascend(runs: Mapping[str, Sequence[Ran]]) -> str:
    header = ["Name", "Acc@1", "FPS", "Epochs", "AMP_Type", "Torch_Version"]
    rows = []
    for row in ASCEND:
        rows.append([f"{row.name}, published", row.accuracy, row.speed, row.epochs, row.precision, row.torch])
        if row.devices:
            rows.append([f"{row.name}, ours", *_ascend_cells(row, runs)])
    return _markdown("Ascend: ResNet-50", "README of the port; FPS and epochs of training/fine-tuning", header, rows)


def _ascend_cells(row: AscendRow, runs: Mapping[str, Sequence[Ran]]) -> list[str]:
    """Return a row of ours: accuracy after the fix and before it, speeds, epochs, precision and version."""
    train, fix = (_first_of(runs, kind, row) for kind in ("train", "finetune"))
    ran = [run for run in (train, fix) if run is not None]
    if not ran:
        return [_NOTHING] * 5
    accuracy = "" if train is None else f"{train.after[train.size]['top1']:.1f} at {train.size} px"
    if fix is not None:
        before = fix.before.get(fix.size)
        at_size = f"({before['top1']:.1f} before finetune)" if before else ""
        accuracy = f"{fix.after[fix.size]['top1']:.1f}{at_size}"
    speeds = [_NOTHING if run is None else f"{run.fps:.0f}" for run in (train, fix)]
    epochs = [_NOTHING if run is None else f"{run.epochs:g}" for run in (train, fix)]
    precisions = sorted({run.precision for run in ran if run.precision})
    versions = sorted({run.torch for run in ran if run.torch})
    return [accuracy, "/".join(speeds), "/".join(epochs), ", ".join(precisions) or _NOTHING, ", ".join(versions)]


def _first_of(runs: Mapping[str, Sequence[Ran]], kind: str, row: AscendRow) -> Ran | None:
    """Return the run of a row: the full one where there is one, else that for the speed alone."""
    for mode in ("full", "performance"):
        found = runs.get(f"ascend/{kind}-{mode}-{row.devices}p", ())
        if found:
            return found[0]
    return None
