"""8-bit weights and activations: calibrated on one split at the test size, measured on another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fixres.checkpoints.product import Product
from fixres.data.collections import Collection
from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.measure import open_for
from fixres.evaluation.metrics import PairedDifference, paired_difference
from fixres.inference.export.formats.export_format import ExportFormat, Images, Run, Save
from fixres.inference.export.formats.table import find_format, open_exported
from fixres.inference.export.metadata import EightBit, ExportSheet
from fixres.inference.export.parity import file_inputs, views
from fixres.runtime.cpus import resolve_workers

NUM_CALIBRATION = 300
"""Pictures whose activations decide the ranges; NNCF's own default."""
_BATCH = 16
_FLAG = "--calibration"


def open_labelled(product: Product, uri: str | None) -> Collection:
    """Return pictures to calibrate on, as `select` (the training split where there is one), and the reported split.

    Raises:
        UserError: no data are known, or there is only one split.
    """
    try:
        collection = open_for(product, SplitRequest(data=uri))
    except UserError as error:
        raise UserError(
            f"8 bits are calibrated and measured on labelled pictures: {error}".replace("--data", _FLAG)
        ) from error
    name = "train" if "train" in collection.splits else collection.select
    if name == collection.report:
        raise UserError(
            f"{collection.uri} has one split only; 8 bits are calibrated on one and measured on another\n"
            "  fixres data split makes them"
        )
    return replace(collection, select=name)


def quantise(
    full: Path, sheet: ExportSheet, product: Product, pictures: Collection, max_drop: float, step: Callable[[str], None]
) -> tuple[list[Path], ExportSheet, PairedDifference]:
    """Round a file to 8 bits and measure both.

    Returns the files, the one to open last, their sheet, and 8 bits minus 32 on the same pictures, in points.

    Args:
        full: the file in 32 bits; stays as it is.
        sheet: of that file.
        product: what it was made from.
        pictures: see `open_labelled`.
        max_drop: points of top-1 that may be lost.
        step: told in words what is being done.

    Raises:
        UserError: the network cannot be rounded, or more than `max_drop` is lost.
    """
    calibration, report = pictures.split(pictures.select), pictures.split(pictures.report)
    chosen = np.unique(np.linspace(0, len(calibration) - 1, NUM_CALIBRATION).round().astype(int))
    step(f"calibrating 8 bits on {len(chosen)} pictures of {calibration.name}")
    inputs = [
        file_inputs(views([calibration.read(int(i))], product, sheet.size, sheet.size), sheet).numpy() for i in chosen
    ]
    save = _rounded(find_format(sheet.format), full, inputs, product.architecture)
    folder = full.parent / "int8"
    folder.mkdir()
    path = folder / full.name
    save(sheet, path)
    step(f"measuring 32 and 8 bits on {report.name}, n = {len(report):,}")
    before, after = _correct([open_exported(full).run, open_exported(path).run], product, sheet, report)
    paired = paired_difference(before, after)
    if -paired.difference > max_drop:
        low, high = paired.ci95
        raise UserError(
            f"8 bits cost {-paired.difference:.2f} points of top-1 on {report.name} (n = {len(before):,}, "
            f"95 % interval {-high:.2f} to {-low:.2f}), allowed {max_drop:g}; nothing was written\n"
            "  leave --int8 out, or allow more with --max-drop"
        )
    record = EightBit(
        calibrated_on=f"{calibration.name} of {pictures.uri}",
        num_calibration=len(chosen),
        measured_on=report.name,
        num_images=len(before),
        top1_before=100 * float(before.mean()),
        top1=100 * float(after.mean()),
    )
    said = sheet.model_copy(update={"int8": record})
    return save(said, path), said, paired


def _rounded(kind: ExportFormat, full: Path, inputs: list[Images], architecture: str) -> Save:
    assert kind.rounding is not None
    try:
        return kind.rounding.round(full, inputs)
    except Exception as error:  # whatever a network makes it trip over
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{architecture} cannot be rounded to 8 bits ({type(error).__name__}: {reason})\n  leave --int8 out"
        ) from error


def _correct(runs: list[Run], product: Product, sheet: ExportSheet, split: Split) -> list[np.ndarray]:
    """Return for every file bool `[N]`: whether its best class is the label."""
    found: list[list[np.ndarray]] = [[] for _ in runs]
    batches = evaluation_batches(split, [product.preprocess], _BATCH, ReadPolicy(resolve_workers("auto")))
    for (pixels,), labels, _ in batches:
        images = file_inputs(pixels, sheet).numpy()
        for own, run in zip(found, runs, strict=True):
            own.append(run(images).argmax(1) == labels.numpy())
    return [np.concatenate(own) for own in found]
