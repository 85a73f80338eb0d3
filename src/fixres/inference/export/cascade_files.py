"""A cascade for other programs: both sizes as files, and the JSON that says which pictures go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.inference.cascade import first_of, kept_cascade
from fixres.inference.deferral import INPUTS
from fixres.inference.export.export import Exported, export
from fixres.inference.export.formats.table import formats_of
from fixres.inference.requests import ExportRequest
from fixres.io.files import write_text

RULE = "cascade.json"
_NAMES = ("small.onnx", "large.onnx")


def require_possible_cascade(request: ExportRequest) -> None:
    """Refuse what a cascade is not written with, before anything is loaded.

    Raises:
        UserError: naming it.
    """
    if request.format != "onnx" or request.int8:
        raise UserError(
            "--cascade writes two ONNX files and the JSON their runner reads\n  leave --format and --int8 out"
        )
    if request.size is not None:
        raise UserError("--cascade has two sizes of its own; leave --size out")
    if formats_of(request.out) or request.out.is_file():
        raise UserError(f"{request.out}: a cascade is a folder of files\n  --out {request.out.with_suffix('')}")


def export_cascade(
    product: Product, request: ExportRequest, step: Callable[[str], None]
) -> tuple[list[Exported], Path]:
    """Write both sizes of a product's cascade and return them and the file that joins them.

    `run_onnx.py FOLDER PICTURES` beside them answers as `fixres predict --cascade`. The JSON comes last: without it
    there is no cascade.

    Raises:
        UserError: the product holds no cascade, or whatever `export` refuses.
    """
    kept = kept_cascade(product)
    if product.weights == "before_fix":
        raise UserError("a cascade is for the weights that ship, and these are those from before the fix")
    # A rule that was here before is not for the files that come.
    (request.out / RULE).unlink(missing_ok=True)
    made = []
    for name, size, own in zip(_NAMES, kept["sizes"], (first_of(product, kept["sizes"][0]), product), strict=True):
        made.append(export(own.at(size), replace(request, out=request.out / name), step))
    rule = {**kept, "by": kept.get("by", "confidence"), "small_weight": kept.get("small_weight", 0.0)}
    path = request.out / RULE
    write_text(path, json.dumps({"files": list(_NAMES), "inputs": list(INPUTS), **rule}, indent=2) + "\n")
    return made, path
