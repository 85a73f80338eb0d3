"""`train PHOTOS`: looks at a collection, probes it, trains what the minutes allow, fixes, and ships by a rule.

The run it ends with is that of an ordinary recipe, which holds what was chosen and can be run again; the choosing went
by the clock and cannot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixres.config.loading import load
from fixres.evaluation.results import Run
from fixres.io.files import write_text
from fixres.runtime.run_folder import Listener
from fixres.training.resume import find_start
from fixres.training.run import run_recipe
from fixres.training.start_checks import AS_USUAL, StartChecks

RECORD = "choices.json"
"""In the run folder: what was tried, what was chosen and why, and the seconds each part took."""

MINUTES = 3.0
PROBE_SHARE = 1 / 3
"""Of the minutes, what trying networks and sizes may take."""
_END_SECONDS = 8.0
"""Kept for the last measurements, the product and the report."""
_FEW = 1000
"""Training pictures below which more than a tenth of them is held out to choose on."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants of their pictures."""

    uri: str
    """Folder or data URI."""
    minutes: float = MINUTES
    """How long it may take, start-up and report included."""
    models: tuple[str, ...] = ()
    """Networks to try, by timm name or checkpoint; empty: the small ones that are on this disk."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the recipe that are decided already, by dotted key."""


class Clock:
    """Seconds of the minutes that are left, those of an interrupted beginning counted."""

    def __init__(self, minutes: float, started: float, earlier: float = 0.0) -> None:
        """`started`: time.monotonic() when the program began."""
        self.end = started + 60 * minutes - earlier
        self.started, self.earlier = started, earlier

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.earlier + time.monotonic() - self.started


def train_pictures(
    wish: Wish,
    folder: Path,
    *,
    started: float,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checks: StartChecks = AS_USUAL,
) -> Run:
    """Train the best classifier of a collection that the minutes allow, and write a run folder.

    Args:
        wish: the pictures, the minutes, and what is decided already.
        folder: run folder; must not hold a run unless `resume`.
        started: time.monotonic() when the program began.
        resume: go on with a run that was interrupted, in the minutes it has left.
        listeners: told about every event and about progress.
        checks: how sure of folder and pictures it has to be.

    Raises:
        UserError: anything wrong with the pictures, the networks or the folder.
        Stopped: a signal came; the best product so far is in the folder, and `resume` goes on.
    """
    record = Record.read(folder) if resume else Record(folder)
    if not resume:
        find_start(folder, "", resume=False)
        record.note(uri=wish.uri, minutes=wish.minutes, settings=dict(wish.settings))
    clock = Clock(wish.minutes, started, record.get("seconds", 0.0))
    saved = folder / "recipe.yaml"
    try:
        if resume and saved.exists():
            recipe = load(saved)
        else:
            recipe = _Choice(wish, folder, clock, record, listeners).recipe()
        end = time.monotonic() + max(1.0, clock.left - record.get("end_seconds", _END_SECONDS))
        run = run_recipe(recipe, folder, resume=resume, listeners=listeners, checks=replace(checks, train_until=end))
    finally:
        record.note(seconds=round(clock.spent, 1))
    _keep_where_it_ended(folder)
    return run


def _keep_where_it_ended(folder: Path) -> None:
    """Write into the recipe after which step the clock ended the training, so that the recipe repeats it."""
    cut = [event for event in read_events(folder) if event["event"] == "out_of_time"]
    if not cut:
        return
    path = folder / "recipe.yaml"
    recipe = load(path)
    stage = recipe.train.model_copy(update={"stop_step": cut[-1]["step"]})
    write_text(path, to_yaml(recipe.model_copy(update={"train": stage})))


class Record:
    """RUN/choices.json, written whenever something is added to it."""

    def __init__(self, folder: Path, content: Mapping[str, Any] | None = None) -> None:
        self.path = folder / RECORD
        self._content = dict(content or {})

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Return what an interrupted beginning left; nothing where there is none or it cannot be read."""
        try:
            content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        return cls(folder, content if isinstance(content, dict) else {})

    def get(self, key: str, default: Any) -> Any:
        """Return a value."""
        return self._content.get(key, default)

    def note(self, **values: Any) -> None:
        """Add values and write the file."""
        self._content |= values
        write_text(self.path, json.dumps(self._content, indent=1) + "\n")
