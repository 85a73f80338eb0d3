"""How a checkpoint is asked to be fed: flags of commands and the argument of `load`, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fixres.config.stage import Factor, Fraction
from fixres.resolution import Interpolation, Resize

Program = Literal["simpleclassification", "resnext-pytorch", "fixres", "torchvision", "timm"]
"""Programs whose way to feed a network is known."""


@dataclass(frozen=True, kw_only=True)
class PreprocessChanges:
    """What takes the place of a checkpoint's own preprocessing. None leaves it as it is."""

    resize: Resize | None = None
    """Resize in place of the checkpoint's own; height: as the released FixRes weights were measured."""
    crop_ratio: Annotated[float, Field(ge=0.1, le=1)] | None = None
    """Crop ratio, size / resize_size, in place of the checkpoint's own."""
    interpolation: Interpolation | None = None
    """Interpolation of the resize in place of the checkpoint's own."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """Per-channel mean of the input in place of the checkpoint's own."""
    std: tuple[Factor, Factor, Factor] | None = None
    """Per-channel standard deviation of the input in place of the checkpoint's own."""


CHANGES = ("resize", "crop_ratio", "interpolation", "mean", "std")
"""The fields of `PreprocessChanges`, which are fields of `Preprocess` too."""


@dataclass(frozen=True, kw_only=True)
class FedAs:
    """Which program feeds a bare weights file."""

    fed_as: Program | None = None
    """Program whose preprocessing a bare weights file is fed with; left out: that whose marks the file bears, or timm's
    for the model, which is said."""


@dataclass(frozen=True, kw_only=True)
class Feeding(FedAs, PreprocessChanges):
    """How a checkpoint is fed: a bare weights file as some program does, and changes of that or of its own."""


def given_changes(changes: PreprocessChanges) -> tuple[str, ...]:
    """Return the flags of the changes that were asked for, with their values."""
    given = {name: getattr(changes, name) for name in CHANGES if getattr(changes, name) is not None}
    return tuple(f"--{name.replace('_', '-')} {shown(value)}" for name, value in given.items())


def shown(value: Any) -> str:
    """Return a setting as it is typed: numbers of the channels with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
