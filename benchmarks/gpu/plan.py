"""What is measured, in which order, at which scale and for how long at most.

One of each kind comes first, so that a run whose time ends early has something of everything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    network: str
    sizes: tuple[int, int]
    precision: str
    batch_size: int
    steps: int
    """Steps of a training."""
    warmup_steps: int
    """The first, which are not counted: kernels are chosen and compiled in them."""
    lone_steps: int
    """The last, each begun on an idle GPU: in them the time of the host is taken, and no rate."""
    photographs: int
    """Different JPEGs that are made."""
    copies: int
    """Files with the same content as each of them."""
    workers: int | None
    """Loader processes; None: one for each core."""
    repeat: int
    """Passes of evaluation and reading."""
    study_network: str
    study_pictures: str
    """Data URI."""
    study_epochs: int
    study_sizes: tuple[int, int]
    """Trained at the first, fixed at the second."""

    @property
    def num_files(self) -> int:
        """JPEGs to read."""
        return self.photographs * self.copies


GPU = Scale(
    device="cuda",
    network="resnet50",
    sizes=(224, 160),
    precision="bf16",
    batch_size=256,
    steps=64,
    warmup_steps=10,
    lone_steps=10,
    photographs=128,
    copies=32,
    workers=None,
    repeat=3,
    study_network="resnet18",
    study_pictures="synthetic:classes=20,images=20000,size=96",
    study_epochs=3,
    study_sizes=(64, 96),
)
TOY = Scale(
    device="cpu",
    network="test_resnet",
    sizes=(32, 32),
    precision="fp32",
    batch_size=8,
    steps=6,
    warmup_steps=2,
    lone_steps=2,
    photographs=4,
    copies=4,
    workers=0,
    repeat=1,
    study_network="test_resnet",
    study_pictures="synthetic:classes=2,images=24,size=40",
    study_epochs=1,
    study_sizes=(32, 40),
)
"""Every path on a CPU, in a minute; its figures say nothing."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, which runs in a process of its own."""

    name: str
    limit_seconds: float
    kind: str
    """Function of `measure.py`."""
    arguments: dict[str, Any]
    leaves: str = ""
    """What it leaves in the work folder for the others."""

    def settings(self, scale: Scale) -> dict[str, Any]:
        """Return what a result must have been measured with to be this one's."""
        return {"kind": self.kind, **self.arguments, **asdict(scale)}


PICTURES = Measurement("pictures", 90, "make_pictures", {}, leaves="photos")
"""First, and needed by all others."""


def measurements(scale: Scale) -> list[Measurement]:
    """Return everything, in order."""
    large, small = scale.sizes
    if scale is TOY:
        trainings = (_training("jpeg", large, is_compiled=False), _training("synthetic", large, is_compiled=True))
        # A CPU that other work shares is no GPU: what it shows is that every path runs.
        return [replace(one, limit_seconds=4 * one.limit_seconds) for one in (PICTURES, *trainings, *_OTHERS)]
    eager = [_training(source, size, is_compiled=False) for size in (large, small) for source in ("synthetic", "jpeg")]
    # The second of a size finds the kernels of the first on disk.
    compiled = [
        _training(source, size, is_compiled=True) for size in (large, small) for source in ("synthetic", "jpeg")
    ]
    return [PICTURES, *eager[:2], *_OTHERS, *compiled[:2], *eager[2:], *compiled[2:]]


def _training(source: str, size: int, *, is_compiled: bool) -> Measurement:
    name = f"train-{source}-{size}-{'compiled' if is_compiled else 'eager'}"
    arguments = {"source": source, "size": size, "is_compiled": is_compiled}
    return Measurement(name, 150 if is_compiled else 75, "train", arguments)


_OTHERS = (
    Measurement("eval", 75, "evaluate", {}),
    Measurement("loader", 75, "read", {}),
    Measurement("study", 120, "study", {}),
)
