"""All formats by name."""

from __future__ import annotations

from pathlib import Path

from fixres.errors import UserError, did_you_mean
from fixres.inference.export.formats.export_format import ExportFormat
from fixres.inference.export.formats.onnx import ONNX
from fixres.inference.export.formats.openvino import OPENVINO
from fixres.inference.export.formats.torch_export import TORCH

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
