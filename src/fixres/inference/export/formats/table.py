"""All formats by name, and a file of any of them opened, ready to compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fixres.errors import UserError, did_you_mean
from fixres.inference.export.formats.export_format import ExportFormat, Images, Run
from fixres.inference.export.formats.onnx import ONNX
from fixres.inference.export.formats.openvino import OPENVINO
from fixres.inference.export.formats.torch_export import TORCH
from fixres.inference.export.metadata import ExportSheet, read_sheet

FORMATS: dict[str, ExportFormat] = {one.name: one for one in (ONNX, TORCH, OPENVINO)}
"""What `fixres export --format` takes."""


def register_format(added: ExportFormat) -> None:
    """Add a format: export, the comparison with the network, and the server take it from then on.

    Raises:
        ValueError: its name or its suffix is taken.
    """
    if added.name in FORMATS or added.suffix in suffixes():
        raise ValueError(f"there is a format '{added.name}' or a suffix '{added.suffix}' already")
    FORMATS[added.name] = added


def find_format(name: str) -> ExportFormat:
    """Return the format called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in FORMATS:
        raise UserError(f"there is no format '{name}'{did_you_mean(name, FORMATS)}\n  --format {' | '.join(FORMATS)}")
    return FORMATS[name]


def suffixes() -> tuple[str, ...]:
    """Return the endings of all formats."""
    return tuple(one.suffix for one in FORMATS.values())


def formats_of(path: Path) -> list[ExportFormat]:
    """Return the formats whose files end as `path` does: one, or none."""
    return [one for one in FORMATS.values() if one.suffix == path.suffix]


@dataclass(frozen=True)
class ExportedModel:
    """A file of `fixres export`, held in memory: replacing the file changes nothing here."""

    path: Path
    sheet: ExportSheet
    backend: str
    """torch | onnxruntime | openvino."""
    run: Run
    """float32 `[B, 3, H, W]`, in the sheet's value range, to the file's outputs `[B, C]`."""

    def outputs(self, images: Images) -> Images:
        """Return logits or probabilities float32 `[B, C]`.

        Raises:
            UserError: the file does not accept such inputs.
        """
        height, width = images.shape[2:]
        if not self.sheet.sizes.accept(height, width):
            raise UserError(f"{self.path.name} takes {self.sheet.sizes.describe()}, not {height} x {width}")
        return self.run(np.ascontiguousarray(images, dtype=np.float32))


def is_exported(source: str) -> bool:
    """Return whether a checkpoint's name is that of an exported file."""
    return Path(source).suffix in suffixes()


def open_exported(path: Path, backend: str | None = None, threads: int = 0) -> ExportedModel:
    """Open a file of `fixres export`.

    Args:
        path: the file, such as model.onnx, model.pt2 or model.xml.
        backend: torch, onnxruntime or openvino; None: the format's own.
        threads: of the backend; 0: as it likes.

    Raises:
        UserError: no such file, damaged, not written by `fixres export`, or of a format the backend does not read.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    found = formats_of(path)
    if not found:
        raise UserError(f"{path} is no exported file\n  known: {', '.join(suffixes())}")
    openers = found[0].openers
    backend = backend or next(iter(openers))
    if backend not in openers:
        raise UserError(f"{path.suffix} files do not run on {backend}\n  allowed: {', '.join(openers)}")
    text, run = openers[backend](path, threads)
    return ExportedModel(path, read_sheet(text, path), backend, run)
