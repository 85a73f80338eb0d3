"""What a format of exported files is."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fixres.errors import UserError, require_extra

if TYPE_CHECKING:
    from fixres.inference.export.metadata import ExportSheet
    from fixres.inference.export.trace import Captured

Images = npt.NDArray[np.float32]
Run = Callable[[Images], Images]
"""From float32 `[B, 3, H, W]`, in the sheet's value range, to the file's outputs `[B, C]`."""
Opener = Callable[[Path, int], tuple[str | None, Run]]
"""From a file and a number of threads (0: as the backend likes) to the sheet stored in it and what computes it."""
Save = Callable[["ExportSheet", Path], list[Path]]
"""Writes what is held in memory with a sheet inside and returns the files, the one to open last."""


@dataclass(frozen=True)
class Rounding:
    """How files of a format are rounded to 8 bits."""

    packages: tuple[tuple[str, str], ...]
    """Packages it takes, each with the extra of fixres that installs it."""
    round: Callable[[Path, Sequence[Images]], Save]
    """From a file in 32 bits and inputs `[1, 3, H, W]`, whose activations decide the ranges; it stays as it is."""


@dataclass(frozen=True)
class ExportFormat:
    """One format of `fixres export`."""

    name: str
    """What is typed after `--format`."""
    suffix: str
    """Ending of the file to open, with its point."""
    packages: tuple[tuple[str, str], ...]
    """Packages it takes to write one, each with the extra of fixres that installs it."""
    tolerance: float
    """Largest difference from the network that is taken, as a share of the range of its outputs."""
    write: Callable[[Captured, ExportSheet, Path], list[Path]]
    """Writes the program with its sheet inside and returns the files, the one to open last."""
    openers: Mapping[str, Opener]
    """By backend what opens a file, the format's own backend first."""
    opset: int | None = None
    """Version of the operators in the file, where there is such a thing."""
    runner: Path | None = None
    """A program that is copied beside the file."""
    runner_name: str = ""
    """Its name there; empty: its own."""
    ordinary: Opener | None = None
    """Opens a file as other programs do, where the format's own backend is told more than they tell it."""
    rounding: Rounding | None = None
    """How it has 8 bits; None: it has none."""

    def require_packages(self, int8: bool = False) -> None:
        """Raise UserError where a package is missing, with the pip line."""
        for package, extra in self.packages + (self.rounding.packages if int8 and self.rounding else ()):
            if importlib.util.find_spec(package) is None:
                raise require_extra(package, extra)


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for people of a file that its backend cannot open."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} is damaged or no model ({first})\n  write it again: fixres export CKPT --out {path}")


@contextlib.contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Keep progress, warnings and all but errors of the log `logger` to itself."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
