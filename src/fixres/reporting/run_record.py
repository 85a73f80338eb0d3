"""What a run folder says: its events, recipe, environment and product, read without loading a network."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixres.config.loading import read_document
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events, read_status
from fixres.runtime.run_lock import is_abandoned

Json = dict[str, Any]
_MOST_NAMED = 10
"""Pictures that are named of those that were left out."""


@dataclass(frozen=True)
class Comparison:
    """Rows measured on the report split, and the paired difference fixed minus before in points, when there is one."""

    split: str
    num_images: int
    rows: tuple[Json, ...]
    paired: Json
    differences: tuple[Json, ...] = ()
    """Paired like `paired`, each of `row` minus `minus`; runs before the control have none."""
    control: str = ""
    """The row of the control, or why there is none."""
    has_new_head: bool = False
    """Whether the fix began with a random head, so that nothing came before it."""

    def difference(self, row: str, minus: str) -> Json:
        """Return the paired difference of two rows, empty where it was not logged."""
        return next((d for d in self.differences if (d.get("row"), d.get("minus")) == (row, minus)), {})

    def row(self, label: str) -> Json | None:
        """Return the row of that label."""
        return next((row for row in self.rows if row.get("label") == label), None)

    @property
    def shipped(self) -> Json | None:
        """The row of what was chosen to ship; None where what the last stage made ships unasked."""
        return next((row for row in self.rows if row.get("is_shipped")), None)


@dataclass(frozen=True)
class Record:
    """One run folder. Everything but the folder may be missing: a run may be going on, or have no fix stage."""

    folder: Path
    name: str
    events: tuple[Json, ...]
    recipe: Json
    environment: Json
    product: Json
    predictions: tuple[Json, ...]
    status: Json

    def all_of(self, kind: str) -> list[Json]:
        """Return the events of one kind, oldest first."""
        return [event for event in self.events if event["event"] == kind]

    def last(self, kind: str) -> Json | None:
        """Return the newest event of one kind."""
        return next((event for event in reversed(self.events) if event["event"] == kind), None)

    def section(self, name: str) -> Json:
        """Return one section of the recipe, empty when it is not there."""
        return _as_dict(self.recipe.get(name))

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return str(self.section("model").get("name") or self.product.get("architecture") or "")

    @property
    def first_stage(self) -> Json:
        """The stage that says how pictures were cropped in training; a run that only fixes keeps it switched off."""
        stages = self.recipe.get("stages")
        return dict(stages[0]) if stages else self.section("train")

    @property
    def state(self) -> str:
        """done, or what the run says it is doing."""
        return "done" if self.last("done") else str(self.status.get("state", "unfinished"))

    @property
    def fixres(self) -> Json:
        """The product's own account of its sizes."""
        return _as_dict(self.product.get("fixres"))

    @property
    def train_size(self) -> int | None:
        """Size the network was trained at."""
        return _size(self.fixres.get("train_size")) or _size(self.first_stage.get("size"))

    @property
    def test_size(self) -> int | None:
        """Size the product is used at: what was chosen, not what the recipe guessed."""
        fix = self.last("fix") or {}
        return _size(self.fixres.get("test_size")) or _size(fix.get("size")) or self.train_size

    @property
    def has_fix(self) -> bool:
        """Whether a fix stage ran."""
        return self.last("fix") is not None or self.sweep("fixed") is not None

    @property
    def ships_fix(self) -> bool:
        """Whether the product is the fixed network."""
        chosen = self.comparison.shipped if self.comparison else None
        return self.has_fix and (chosen is None or chosen.get("label") == "fixed")

    def sweep(self, label: str) -> Json | None:
        """Return accuracy over sizes `before` or after the fix (`fixed`), the newest one logged.

        The sweep of a run without a fix, `trained`, takes the place of `before`; where it has none, what it measured on
        the report split does.
        """
        labels = ("before", "trained") if label == "before" else (label,)
        sweeps = reversed(self.all_of("sweep"))
        found = next((e for e in sweeps if e.get("label") in labels and e.get("results")), None)
        if found is None and label == "before" and self.comparison and not self.last("fix"):
            event = self.last("comparison") or {}
            return {**event, "results": event["rows"]} if len(event["rows"]) > 1 else None
        return found

    @property
    def comparison(self) -> Comparison | None:
        """The comparison on the report split."""
        event = self.last("comparison")
        if not event or not event.get("rows"):
            return None
        return Comparison(
            str(event.get("split", "")),
            int(event.get("num_images") or 0),
            tuple(event["rows"]),
            event.get("paired") or {},
            tuple(event.get("differences") or ()),
            str(event.get("control") or ""),
            bool(event.get("new_head")),
        )

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the confusion matrix."""
        names = self.product.get("label_names") or (self.last("start") or {}).get("classes") or ()
        return [str(name) for name in names]

    @property
    def imbalance(self) -> float | None:
        """How many times larger the largest class of the report split is than the smallest; None where unknown."""
        split = self.comparison.split if self.comparison else ""
        return number(_as_dict((self.last("start") or {}).get("imbalance")).get(split))

    @property
    def notes(self) -> list[str]:
        """What the run wanted its user to know."""
        start = self.last("start") or {}
        said = [str(note) for note in start.get("notes") or ()]
        said += [str(event["text"]) for name in ("note", "warning") for event in self.all_of(name) if event.get("text")]
        bad = dict.fromkeys(str(path) for event in self.all_of("bad_images") for path in event.get("paths", ()))
        if bad:
            named = ", ".join([*bad][:_MOST_NAMED]) + (" ..." if len(bad) > _MOST_NAMED else "")
            said.append(f"Pictures that could not be read and were left out: {len(bad)} ({named}).")
        return said


def require_run(folder: Path) -> None:
    """Refuse a folder that does not exist or holds no run.

    Raises:
        UserError: saying which.
    """
    if folder.is_file():
        raise UserError(f"'{folder}' is a file\n  fixres report RUN takes the folder of a run")
    if not folder.is_dir():
        raise UserError(f"no run folder '{folder}'\n  fixres report RUN takes a folder that `fixres train` wrote")
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"'{folder}' is not a run folder: it has no metrics.jsonl{_hint(folder)}")


def read_run(folder: Path) -> Record:
    """Return what `folder` says; a last line that a kill cut short is left out.

    Raises:
        UserError: the folder does not exist or holds no run.
    """
    require_run(folder)
    events = _events(folder)
    start: Json = next((event for event in reversed(events) if event["event"] == "start"), {})
    predictions = read_json(folder / "predictions.json")
    return Record(
        folder=folder,
        name=folder.resolve().name,
        events=tuple(events),
        recipe=_read_recipe(folder / "recipe.yaml") or start.get("recipe") or {},
        environment=_as_dict(read_json(folder / "environment.json")),
        product=_as_dict(read_json(folder / "model" / "config.json")),
        predictions=tuple(item for item in predictions if isinstance(item, dict))
        if isinstance(predictions, list)
        else (),
        status=_read_status(folder),
    )


def _read_status(folder: Path) -> Json:
    """Return what the run says it is doing; of one that can say nothing any more, that it was killed."""
    status = read_status(folder)
    return {**status, "state": "killed"} if status.get("state") == "running" and is_abandoned(folder) else status


def _events(folder: Path) -> list[Json]:
    try:
        events = read_events(folder)
    except OSError as error:
        raise UserError(f"'{folder / 'metrics.jsonl'}' cannot be read: {error}") from error
    if not events and not (folder / "recipe.yaml").is_file():
        # A run writes its recipe first; with neither, another program wrote this file.
        raise UserError(f"'{folder}' is not a run folder: no event of fixres in its metrics.jsonl, and no recipe.yaml")
    return events


def _hint(folder: Path) -> str:
    if (folder.parent / "metrics.jsonl").is_file():
        return f"\n  did you mean '{folder.parent}'?"
    runs = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    if runs:
        words = shlex.join(["fixres", "report", *map(str, runs[:3])])
        return f"\n  there are runs in it: {words}{' ...' if len(runs) > 3 else ''}"
    return "\n  fixres report RUN takes a folder that `fixres train` wrote"


def number(value: Any) -> float | None:
    """Return `value` as a finite float, or None: a diverged loss is stored as NaN or null."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _size(value: Any) -> int | None:
    """Return a size in pixels, or None where a recipe says `auto` or nothing."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def same_but_for_seed(records: Sequence[Record]) -> bool:
    """Return whether the runs repeat one recipe with different seeds."""
    plain = [_without_seed(record.recipe) for record in records]
    seeds = {record.recipe.get("seed") for record in records}
    return len(records) > 1 and len(seeds) == len(records) and all(recipe == plain[0] for recipe in plain)


def _without_seed(recipe: Mapping[str, Any]) -> Json:
    return {key: value for key, value in recipe.items() if key not in ("seed", "output", "runtime")}


def read_json(path: Path) -> Any:
    """Return the content of a file; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_recipe(path: Path) -> Json:
    try:
        return dict(read_document(path).values)
    except UserError:
        return {}


def _as_dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
