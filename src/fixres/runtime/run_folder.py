"""The run folder: what ran, where, and one JSON object per event."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fixres.errors import EXIT_USER_ERROR, Notice, UserError
from fixres.io.files import cannot_write, write_text
from fixres.runtime.run_lock import RunLock, is_abandoned
from fixres.runtime.trackers import Pixels, Trackers, required_trackers, scalars_of

Listener = Callable[[dict[str, Any]], None]
_PACKAGES = ("fixres", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "simplejpeg", "openvino")


def environment() -> dict[str, Any]:
    """Return versions, machine and the command that was typed."""
    import torch

    return {
        "command": " ".join(["fixres", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """Return the commit of the fixres checkout this code runs from, if it is one."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class RunLog:
    """Appends events to RUN/metrics.jsonl, mirrors their numbers to trackers and tells listeners."""

    def __init__(
        self,
        folder: Path,
        tracker: str | Sequence[str] = "tensorboard",
        listeners: tuple[Listener, ...] = (),
        metrics: Sequence[str] = (),
    ) -> None:
        """Make the folder. Trackers start with the first event, when it is known where a resumed run goes on.

        Args:
            folder: the run folder.
            tracker: names of trackers; `none` is no name.
            listeners: told about every event, progress and warnings.
            metrics: figures of a result that trackers draw curves of.

        Raises:
            UserError: a tracker is not installed, or the folder cannot be made.
        """
        self._names = required_trackers(tracker)
        self.folder = folder
        self.listeners = listeners
        self.require_writer: Callable[[], None] = lambda: None
        """Called before anything is written; raises UserError once another run has taken the folder over."""
        self.bad_images: dict[str, None] = {}
        """Pictures that are recorded as left out."""
        self._purge_step: int | None = None
        self._metrics = tuple(metrics)
        self._trackers: Trackers | None = None
        self._stage_steps: dict[int, int] = {}
        self._last = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error

    @property
    def metrics_file(self) -> Path:
        """RUN/metrics.jsonl."""
        return self.folder / "metrics.jsonl"

    @property
    def trackers(self) -> Trackers:
        """The trackers, started when they are first needed."""
        if self._trackers is None:
            self._trackers = Trackers(self._names, self.folder, self._purge_step, self._warn)
        return self._trackers

    def truncate(self, num_bytes: int) -> None:
        """Drop events written after a checkpoint, so that a resumed run does not repeat them, and count on from it."""
        if self.metrics_file.exists() and self.metrics_file.stat().st_size > num_bytes:
            os.truncate(self.metrics_file, num_bytes)
        if not self.size():
            return
        for record in read_events(self.folder):
            self._count(record)
            self._last = record.get("total_step", self._last)
        self._purge_step = self._last + 1

    def size(self) -> int:
        """Return the length of metrics.jsonl in bytes."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def total_step(self, stage_index: int, step: int) -> int:
        """Return the step of the whole run that is `step` of a stage, after the steps of the stages before it."""
        return step + sum(steps for index, steps in self._stage_steps.items() if index < stage_index)

    def event(self, event: str, **fields: Any) -> None:
        """Record one event; where it names a stage and a step, with the step of the whole run. Trackers follow."""
        record = {"event": event, **fields}
        self._count(record)
        if "step" in fields and "stage_index" in fields:
            record.setdefault("total_step", self.total_step(fields["stage_index"], fields["step"]))
        self.require_writer()
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics_file, error) from error
        if event != "kept":
            # That one looks back, at the best step.
            self._last = record.get("total_step", self._last)
        scalars, step = scalars_of(record, self._metrics), self._last
        if scalars:
            self.trackers.each(lambda tracker: tracker.scalars(scalars, step))
        for listener in self.listeners:
            listener(record)

    def left_out(self, names: Iterable[str]) -> None:
        """Record pictures that were left out because they cannot be read, each once a run."""
        new = [name for name in dict.fromkeys(names) if name not in self.bad_images]
        self.bad_images |= dict.fromkeys(new)
        if new:
            self.event("bad_images", num_bad_images=len(self.bad_images), paths=new)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Show the settings of the run, by dotted key, where trackers show such."""
        self.trackers.each(lambda tracker: tracker.settings(values))

    def picture(self, tag: str, pixels: Pixels, total_step: int, caption: str = "") -> None:
        """Show a picture uint8 `[H, W, 3]`, where a tracker shows pictures; metrics.jsonl does not name it."""
        self.trackers.each(lambda tracker: tracker.picture(tag, pixels, total_step, caption))

    def progress(self, **fields: Any) -> None:
        """Tell listeners how far the work is; nothing is recorded."""
        for listener in self.listeners:
            listener({"event": "progress", **fields})

    def tell(self, text: str) -> None:
        """Say something to listeners before a run begins, or where none does; nothing is recorded."""
        for listener in self.listeners:
            listener({"event": "begin", "text": text})

    def status(self, state: str, exit_code: int | None = None) -> None:
        """Write RUN/status.json with the last step of the whole run that was logged."""
        self.require_writer()
        write_status(self.folder, state, exit_code, self._last)

    def close(self) -> None:
        """End the trackers."""
        if self._trackers is not None:
            self._trackers.close()

    def _count(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "plan" and "stage_index" in record:
            self._stage_steps[record["stage_index"]] = record["total_steps"]

    def _warn(self, text: str) -> None:
        # What a tracker does is no part of the run: a listener is told, metrics.jsonl stays the same.
        for listener in self.listeners:
            listener({"event": "warning", "text": text})
        if not self.listeners:
            warnings.warn(text, stacklevel=2)


class MuteLog(RunLog):
    """The log of a process that is not the main one: it writes nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "none")

    def truncate(self, num_bytes: int) -> None:
        """Leave the file alone."""

    def event(self, event: str, **fields: Any) -> None:
        """Leave the file alone."""

    def status(self, state: str, exit_code: int | None = None) -> None:
        """Leave the file alone."""


def read_status(folder: Path) -> dict[str, Any]:
    """Return what RUN/status.json says; nothing without it, or with half of it after a power cut."""
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def tell_end_of_dead(folder: Path) -> None:
    """Write to RUN/status.json that a run failed whose main process is gone without a word, for its other processes.

    While anyone holds the folder, the main process or a run that was started since, nothing is written.
    """
    if not is_abandoned(folder):
        return
    with contextlib.suppress(UserError), RunLock(folder):
        if read_status(folder).get("state") == "running":
            step = max((event.get("total_step", 0) for event in read_events(folder)), default=0)
            write_status(folder, "failed", EXIT_USER_ERROR, step)


def write_status(folder: Path, state: str, exit_code: int | None, step: int) -> None:
    """Write RUN/status.json: what the run does, how it ended, and the last step of it that was logged."""
    content = {"state": state, "exit_code": exit_code, "step": step}
    write_text(folder / "status.json", json.dumps(content) + "\n")


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run. A damaged line is left out, with a notice; a last one that was cut short without.

    Raises:
        UserError: the folder is no run folder, or the file cannot be read.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{folder} is not a run folder: it has no metrics.jsonl")
    events: list[dict[str, Any]] = []
    damaged = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if isinstance(event, dict) and "event" in event:
            events.append(event)
        elif number < len(lines):
            damaged.append(str(number))
    if damaged:
        which = f"line {damaged[0]}" if len(damaged) == 1 else f"lines {', '.join(damaged[:6])}"
        warnings.warn(f"{path}: {which} cannot be read and is left out; all others count", Notice, stacklevel=2)
    return events
