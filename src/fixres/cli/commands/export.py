"""The command `export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fixres.checkpoints.feeding_request import given_changes
from fixres.cli.commands.common import CheckpointFlags, open_checkpoint
from fixres.cli.parse import parse_flags
from fixres.errors import UserError
from fixres.inference.requests import ExportRequest

if TYPE_CHECKING:
    from fixres.cli.console import Console
    from fixres.inference.export.export import Exported


@dataclass(frozen=True, kw_only=True)
class ExportFlags(CheckpointFlags, ExportRequest):
    """Flags of `fixres export`."""

    cascade: bool = False
    """Both sizes of the cascade that `eval --cascade --save` kept, as ONNX files with the JSON that joins them."""
    json: bool = False
    """Print what was written and how well it agrees as JSON on stdout."""
    quiet: bool = False
    """Print results only."""


def export(words: Sequence[str]) -> int:
    """`fixres export CKPT --format onnx|torch|openvino [--size N] --out PATH [--softmax] [--normalise]`."""
    flags = parse_flags(
        words, ExportFlags, "fixres export", "A product as one file for other programs, compared with the network."
    )
    from fixres.cli.console import Console
    from fixres.inference.export.export import export as write
    from fixres.inference.export.export import require_possible

    console = Console(flags.quiet)
    if flags.cascade:
        return _export_cascade(console, flags)
    require_possible(flags)
    product = open_checkpoint(console, flags)
    found = write(product, flags, lambda text: console.say(f"{text} ..."))
    _tell(console, found, product.source)
    if flags.json:
        sys.stdout.write(json.dumps(_answer(found), indent=2) + "\n")
    return 0


def _export_cascade(console: Console, flags: ExportFlags) -> int:
    from fixres.inference.export.cascade_files import export_cascade, require_possible_cascade
    from fixres.inference.export.export import require_possible

    if given := given_changes(flags):
        raise UserError(
            f"--cascade has a rule for pictures prepared as the product says\n  leave {' and '.join(given)} out"
        )
    require_possible_cascade(flags)
    require_possible(flags)
    product = open_checkpoint(console, flags)
    made, rule = export_cascade(product, flags, lambda text: console.say(f"{text} ..."))
    for found in made:
        _tell(console, found, product.source)
    console.say(f"written: {rule}")
    if flags.json:
        answer = {"cascade": str(rule), "exports": [_answer(found) for found in made]}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0


def _tell(console: Console, found: Exported, source: str) -> None:
    from fixres.inference.export.parity import AGREEMENT_HEADER, disagreement

    sheet = found.sheet
    console.preprocessing(sheet.preprocess, source)
    why = f" ({found.reason})" if found.reason else ""
    console.say(f"accepts any batch, {sheet.sizes.describe()}{why}")
    inside = "pixels 0 to 255, RGB" if sheet.normalised_inside else "(pixels / 255 - mean) / std, RGB"
    opset = f", opset {sheet.opset}" if sheet.opset else ""
    console.say(f"input: float32 [B, 3, H, W], {inside}; output: {sheet.output} [B, {len(sheet.classes)}]{opset}")
    console.table(
        f"agreement with the network on {found.compared_on}",
        AGREEMENT_HEADER,
        [row.cells(with_ties=True) for row in found.agreement],
    )
    if found.ordinary:
        title = "the same, opened as other programs do on this processor"
        console.table(title, AGREEMENT_HEADER, [row.cells(with_ties=True) for row in found.ordinary])
    if any(disagreement(row, sheet) for row in found.ordinary):
        console.warn(
            "opened without a hint, OpenVINO computes with 16 bits on this processor; open it with\n"
            f'  openvino.Core().compile_model("{found.path}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})'
        )
    if sheet.int8 is not None and found.rounding is not None:
        low, high = found.rounding.ci95
        console.say(
            f"8 bits, calibrated on {sheet.int8.num_calibration} pictures of {sheet.int8.calibrated_on}: top-1 on "
            f"{sheet.int8.measured_on} {sheet.int8.top1:.2f} %, in 32 bits {sheet.int8.top1_before:.2f} %; difference "
            f"{found.rounding.difference:+.2f} points ({low:+.2f} to {high:+.2f}), n = {sheet.int8.num_images:,}"
        )
    for path in found.files:
        console.say(f"written: {path}")


def _answer(found: Exported) -> dict[str, Any]:
    return {
        "path": str(found.path),
        "files": [str(path) for path in found.files],
        "compared_on": found.compared_on,
        "agreement": [asdict(row) for row in found.agreement],
        "ordinary": [asdict(row) for row in found.ordinary],
        "rounding": None if found.rounding is None else asdict(found.rounding),
        "sheet": json.loads(found.sheet.text()),
    }
