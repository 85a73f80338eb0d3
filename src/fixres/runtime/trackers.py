"""Trackers: where else a run's numbers are shown. None of them may stop a run."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fixres.errors import require_extra

Pixels = npt.NDArray[np.uint8]
Warn = Callable[[str], None]

_PROJECT = "fixres"


class Tracker:
    """What a run tells a tracker; one that cannot show something leaves it out."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Show the settings of the run, by dotted key."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show some numbers of a step."""

    def picture(self, tag: str, pixels: Pixels, step: int, caption: str) -> None:
        """Show a picture uint8 `[H, W, 3]`."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        # Importing it costs a second that a run without it need not pay.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Show the settings as a table."""
        rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
        self._writer.add_text("recipe", f"| key | value |\n| --- | --- |\n{rows}")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to every curve named."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def picture(self, tag: str, pixels: Pixels, step: int, caption: str) -> None:
        """Add a picture, and its caption as a text of the same tag."""
        self._writer.add_image(tag, pixels, step, dataformats="HWC")
        if caption:
            self._writer.add_text(tag, caption, step)

    def close(self) -> None:
        """Flush the file."""
        self._writer.close()


class Accelerated(Tracker):
    """One of Accelerate's trackers: numbers and settings, no pictures, as its interface is thin there."""

    def __init__(self, name: str, folder: Path) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        arguments = {"run_name" if name == "mlflow" else "name": folder.name}
        if name == "wandb":
            arguments["dir"] = str(folder)
        self._tracker = LOGGER_TYPE_TO_CLASS[name](_PROJECT, **arguments)
        self._tracker.start()

    def settings(self, values: Mapping[str, Any]) -> None:
        """Hand over the settings; what is no plain value becomes text."""
        plain = (bool, int, float, str)
        self._tracker.store_init_configuration({k: v if isinstance(v, plain) else str(v) for k, v in values.items()})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Hand over the numbers under names every tracker allows."""
        self._tracker.log({_allowed(tag): value for tag, value in values.items()}, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        self._tracker.finish()


def _allowed(tag: str) -> str:
    # MLflow refuses all but these, and with one name the whole call.
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", tag.replace("@", "_at_"))


class Trackers:
    """Several trackers as one. One that fails is said so once and left out for the rest of the run."""

    def __init__(self, names: Sequence[str], folder: Path, purge_step: int | None, warn: Warn) -> None:
        """Start every tracker.

        Args:
            names: as `output.tracker` has them.
            folder: the run folder.
            purge_step: TensorBoard forgets what an interrupted run wrote from this step on.
            warn: told what failed.
        """
        self._warn = warn
        self._working: dict[str, Tracker] = {}
        for name in names:
            self._try(name, partial(self._start, name, folder, purge_step))

    def _start(self, name: str, folder: Path, purge_step: int | None) -> None:
        tensorboard = name == "tensorboard"
        self._working[name] = TensorBoard(folder, purge_step) if tensorboard else Accelerated(name, folder)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a tracker may never stop a run
            self._working.pop(name, None)
            self._warn(
                f"tracker {name} failed and is left out for the rest of this run: {error or type(error).__name__}"
            )

    def each(self, action: Callable[[Tracker], None]) -> None:
        """Let every tracker that works be told something."""
        for name, tracker in list(self._working.items()):
            self._try(name, partial(action, tracker))

    def close(self) -> None:
        """End every tracker."""
        self.each(lambda tracker: tracker.close())
        self._working.clear()


def required_trackers(given: str | Sequence[str]) -> list[str]:
    """Return the trackers named, `none` left out; their packages are there, and not imported.

    Raises:
        UserError: one is not installed.
    """
    names = [name for name in dict.fromkeys([given] if isinstance(given, str) else given) if name != "none"]
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise require_extra(name, "track")
    return names


def memory() -> dict[str, float]:
    """Return MiB: the most this process has held, and the most tensors on its accelerator have."""
    found: dict[str, float] = {}
    if sys.platform != "win32":
        import resource

        # Linux counts in KiB, macOS in bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        found["memory/process_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    for name in ("cuda", "xpu", "npu"):
        device = getattr(sys.modules.get("torch"), name, None)
        if device is not None and device.is_available():
            found["memory/device_peak_mib"] = device.max_memory_allocated() / 2**20
    return found


def scalars_of(record: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, float]:
    """Return the curves an event adds a point to, by tag; `metrics` are the figures of a result that have curves."""
    stage, event = record.get("stage", ""), record["event"]
    found: dict[str, Any] = {}
    if event == "train":
        names = ("loss", "lr", "images_per_second", "data_wait_ratio")
        found = {f"{stage}/{name}": record.get(name) for name in names} | memory()
    elif event == "epoch":
        found = {f"{stage}/fps": record.get("fps")}
    elif event == "eval":
        found = _at_sizes(f"{stage}/{record['split']}/{record['weights']}", record["results"], metrics)
        found |= _at_sizes(f"{stage}/{record['split']}/raw", record.get("raw_results", []), metrics)
    elif event == "sweep":
        found = _at_sizes(f"sweep/{record['split']}/{record['label']}", record["results"], metrics)
    elif event == "comparison":
        for row in record["rows"]:
            found |= _at_sizes(f"result/{record['split']}/{row['label']}", [row], metrics)
    return {tag: float(value) for tag, value in found.items() if value is not None}


def _at_sizes(prefix: str, results: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    return {f"{prefix}/{name}@{result['size']}": result.get(name) for result in results for name in metrics}
