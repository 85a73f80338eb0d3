"""The run folder: what ran, where, and one JSON object per event."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fixres.errors import UserError

Listener = Callable[[dict[str, Any]], None]
_PACKAGES = ("fixres", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "simplejpeg")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, writer: Callable[[Path], Any]) -> None:
    """Let `writer` fill a temporary file in the same folder, flush it to disk, then put it in place.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}\n  make room, or name another place with --out")


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk; Windows has no such call.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def environment() -> dict[str, Any]:
    """Return versions, machine and the command that was typed."""
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
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class RunLog:
    """Appends events to RUN/metrics.jsonl, mirrors their numbers to a tracker and tells listeners."""

    def __init__(self, folder: Path, tracker: str = "tensorboard", listeners: tuple[Listener, ...] = ()) -> None:
        self.folder = folder
        self.listeners = listeners
        self.step = 0
        """Last step an event named."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        self._writer = self._open_tracker() if tracker == "tensorboard" else None

    def _open_tracker(self) -> Any:
        # Importing it costs a second that a run without a tracker need not pay.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"))

    @property
    def metrics_file(self) -> Path:
        """RUN/metrics.jsonl."""
        return self.folder / "metrics.jsonl"

    def truncate(self, num_bytes: int) -> None:
        """Drop events written after a checkpoint, so that a resumed run does not repeat them."""
        if self.metrics_file.exists() and self.metrics_file.stat().st_size > num_bytes:
            os.truncate(self.metrics_file, num_bytes)

    def size(self) -> int:
        """Return the length of metrics.jsonl in bytes."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def event(self, event: str, **fields: Any) -> None:
        """Record one event. Scalars of train and eval events also go to the tracker."""
        record = {"event": event, **fields}
        self.step = fields.get("step", self.step)
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise _cannot_write(self.metrics_file, error) from error
        self._track(record)
        for listener in self.listeners:
            listener(record)

    def progress(self, **fields: Any) -> None:
        """Tell listeners how far the work is; nothing is recorded."""
        for listener in self.listeners:
            listener({"event": "progress", **fields})

    def status(self, state: str, exit_code: int | None = None) -> None:
        """Write RUN/status.json with the last step logged."""
        content = {"state": state, "exit_code": exit_code, "step": self.step}
        write_text(self.folder / "status.json", json.dumps(content) + "\n")

    def _track(self, record: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        try:
            for tag, value in _scalars(record):
                self._writer.add_scalar(tag, value, record.get("total_step", record.get("step", 0)))
        except Exception as error:  # noqa: BLE001 - a tracker may never stop a run
            warnings.warn(f"TensorBoard failed and is switched off for this run: {error}", stacklevel=2)
            self._writer = None

    def close(self) -> None:
        """Flush the tracker."""
        if self._writer is not None:
            self._writer.close()


def _scalars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    stage = record.get("stage", "")
    if record["event"] == "train":
        return [(f"{stage}/{key}", record[key]) for key in ("loss", "lr", "images_per_second")]
    if record["event"] == "eval":
        return [
            (f"{stage}/{record['split']}/{key}@{result['size']}", result[key])
            for result in record["results"]
            for key in ("top1", "top5", "loss", "ece")
            if result[key] is not None
        ]
    return []


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run, ignoring a last line that was cut short."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{folder} is not a run folder: it has no metrics.jsonl")
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events
