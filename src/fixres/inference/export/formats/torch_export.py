"""torch.export's own file, for PyTorch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from fixres.inference.export.formats.export_format import ExportFormat, Images, Run, damaged
from fixres.inference.export.metadata import KEY, ExportSheet
from fixres.inference.export.trace import Captured


def _write(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    torch.export.save(captured.program, path, extra_files={f"{KEY}.json": sheet.text()})
    return [path]


def _open(path: Path, _threads: int) -> tuple[str | None, Run]:
    extra = {f"{KEY}.json": ""}
    try:
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
        module = program.module()
    except Exception as error:
        raise damaged(path, error) from error

    @torch.inference_mode()
    def run(images: Images) -> Images:
        found: Images = module(torch.from_numpy(images)).numpy()
        return found

    text: Any = extra[f"{KEY}.json"]
    return text.decode() if isinstance(text, bytes) else text, run


TORCH = ExportFormat(
    name="torch",
    suffix=".pt2",
    packages=(),
    tolerance=1e-4,
    write=_write,
    openers={"torch": _open},
)
