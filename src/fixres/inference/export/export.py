"""Export a product: trace, write, compare, and only then put the files in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.evaluation.metrics import PairedDifference
from fixres.evaluation.results import html_table
from fixres.inference.export.formats.export_format import ExportFormat
from fixres.inference.export.formats.table import FORMATS, find_format, formats_of, open_exported
from fixres.inference.export.int8 import open_labelled, quantise
from fixres.inference.export.metadata import ExportSheet, make_sheet
from fixres.inference.export.parity import AGREEMENT_HEADER, Agreement, compare, sample_pictures
from fixres.inference.export.trace import Captured, capture
from fixres.inference.requests import ExportRequest
from fixres.io.files import write_text, write_with


@dataclass(frozen=True)
class Exported:
    """What was written and how well it agrees."""

    path: Path
    files: tuple[Path, ...]
    sheet: ExportSheet
    agreement: tuple[Agreement, ...]
    ordinary: tuple[Agreement, ...]
    """The same of the file as other programs open it here, where that computes otherwise; empty where it does not."""
    compared_on: str
    reason: str
    """Why the file takes one size only; empty where it takes more."""
    rounding: PairedDifference | None = None
    """8 bits minus 32 on the same pictures, in points of top-1."""

    def _repr_html_(self) -> str:
        rows = [row.cells() for row in self.agreement]
        return html_table(f"{self.path}: compared with the network on {self.compared_on}", AGREEMENT_HEADER, rows)


def export(
    product: Product,
    request: ExportRequest,
    step: Callable[[str], None] = lambda text: None,
    captured: Captured | None = None,
) -> Exported:
    """Write a product as one file for other programs, its JSON and, for ONNX and OpenVINO, a runner without torch.

    The file is opened again and compared with the network on pictures first; where they differ nothing is written.

    Args:
        product: the network, its preprocessing and class names. It is moved to the CPU.
        request: format, place and what to compare on.
        step: told in words what is being done.
        captured: the network traced as the request wants it, where it is already.

    Raises:
        UserError: a package is missing, the place cannot be written, the network cannot be exported, or the file does
            not give the network's answers.
    """
    kind, path = require_possible(request)
    if request.size is not None:
        product = product.at(request.size)
    product.model.cpu().eval()
    images, compared_on = sample_pictures(product, request.data, request.pictures)
    labelled = open_labelled(product, request.calibration) if request.int8 else None
    rounding = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}\n  name another place with --out") from error
    try:
        if captured is None:
            step("tracing the network")
            captured = capture(product, softmax=request.softmax, normalise=request.normalise)
        sheet = make_sheet(product, kind, captured.sizes, request)
        step(f"writing {path.name}")
        written = kind.write(captured, sheet, folder / path.name)
        step(f"comparing it with the network on {compared_on}")
        opened = open_exported(written[-1])
        agreement = compare(opened.outputs, captured.eager, images, product, sheet)
        ordinary = []
        if kind.ordinary is not None:
            _, run = kind.ordinary(written[-1], 0)
            ordinary = compare(run, captured.eager, images, product, sheet, is_required=False)
        if labelled is not None:
            written, sheet, rounding = quantise(written[-1], sheet, product, labelled, request.max_drop, step)
        files = _move(written, path, sheet, kind)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}\n  make room, or name another place"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(path, files, sheet, tuple(agreement), tuple(ordinary), compared_on, captured.reason, rounding)


def require_possible(request: ExportRequest) -> tuple[ExportFormat, Path]:
    """Return the format asked for and the file to write, before anything is loaded.

    Raises:
        UserError: no such format, a package is missing, `out` ends like another format, 8 bits are asked of another
            format, or calibrated without being asked for.
    """
    kind = find_format(request.format)
    kind.require_packages(request.int8)
    if request.int8 and kind.rounding is None:
        known = " | ".join(one.name for one in FORMATS.values() if one.rounding)
        raise UserError(f"{kind.name} files stay in 32 bits\n  --format {known}, or leave --int8 out")
    if request.calibration is not None and not request.int8:
        raise UserError("--calibration is for 8 bits\n  add --int8, or leave it out")
    return kind, place(request.out, kind)


def place(out: Path, kind: ExportFormat) -> Path:
    """Return the file to write: `out`, or model.onnx, .pt2 or .xml in the folder it names.

    Raises:
        UserError: `out` ends like another format.
    """
    if out.suffix == kind.suffix and not out.is_dir():
        return out
    ends = f"end in {kind.suffix}"
    if (formats_of(out) or out.suffix == ".bin") and not out.is_dir():
        raise UserError(f"{out} does not {ends}, as {kind.name} files do\n  --out {out.with_suffix(kind.suffix)}")
    if out.is_file():
        raise UserError(f"{out} is a file that does not {ends}\n  --out {out.with_name(out.name + kind.suffix)}")
    return out / f"model{kind.suffix}"


def _move(written: list[Path], path: Path, sheet: ExportSheet, kind: ExportFormat) -> tuple[Path, ...]:
    """Put the files where they belong, the one to open last, so that it is never there without the others."""
    moved = []
    if (program := kind.runner) is not None:
        runner = path.with_name(kind.runner_name or program.name)
        write_with(runner, lambda temporary: shutil.copyfile(program, temporary))
        moved.append(runner)
    beside = path.with_suffix(".json")
    write_text(beside, sheet.text())
    moved.append(beside)
    for file in written:
        target = path.with_name(file.name)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        file.replace(target)
        moved.append(target)
    return tuple(reversed(moved))
