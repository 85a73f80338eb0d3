"""The command `export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fixres.cli.commands.common import open_product
from fixres.cli.parse import Positional, parse_flags


@dataclass(frozen=True)
class ExportFlags:
    """Flags of `fixres export`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    out: Path
    """File to write (.onnx, .pt2, .xml), or a folder for model.onnx and its company."""
    format: Literal["onnx", "torch", "openvino"] = "onnx"
    """onnx: for onnxruntime and most others; torch: torch.export's .pt2; openvino: IR, through ONNX."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Size in place of the product's test size."""
    softmax: bool = False
    """Give probabilities in place of logits."""
    normalise: bool = False
    """Apply mean and std inside the file, which then takes pixels from 0 to 255."""
    data: str | None = None
    """Data URI whose reported split the file is compared on; the product's own when left out."""
    pictures: tuple[str, ...] = ()
    """Files and folders to compare on in place of data."""
    int8: bool = False
    """Round an OpenVINO file to 8 bits; calibrated on the training split, measured on the reported one."""
    calibration: str | None = None
    """Data URI for --int8; the product's own when left out."""
    max_drop: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Points of top-1 that 8 bits may cost; where they cost more, nothing is written."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """before_fix: with the tensors a fix moved as they were; raw or ema of a training checkpoint; FILE for timm:."""
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
    from fixres.inference.export.export import ExportRequest, place, require_rounding
    from fixres.inference.export.export import export as write
    from fixres.inference.export.formats import require_packages

    require_packages(flags.format)
    place(flags.out, flags.format)
    request = ExportRequest(
        out=flags.out,
        format=flags.format,
        size=flags.size,
        softmax=flags.softmax,
        normalise=flags.normalise,
        data=flags.data,
        pictures=flags.pictures,
        int8=flags.int8,
        calibration=flags.calibration,
        max_drop=flags.max_drop,
    )
    require_rounding(request)
    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, flags.weights, flags.model)
    found = write(product, request, lambda text: console.say(f"{text} ..."))
    sheet = found.sheet
    console.preprocessing(sheet.preprocess, product.source)
    why = f" ({found.reason})" if found.reason else ""
    console.say(f"accepts any batch, {sheet.accepted.describe()}{why}")
    inside = "pixels 0 to 255, RGB" if sheet.normalised_inside else "(pixels / 255 - mean) / std, RGB"
    opset = f", opset {sheet.opset}" if sheet.opset else ""
    console.say(f"input: float32 [B, 3, H, W], {inside}; output: {sheet.output} [B, {len(sheet.classes)}]{opset}")
    console.table(
        f"agreement with the network on {found.compared_on}",
        ["height x width", "pictures", "largest difference", "of a range of", "same best class"],
        [
            [
                f"{row.height} x {row.width}",
                str(row.num_images),
                f"{row.max_difference:.1e}",
                f"{row.output_range:.3g}",
                f"{row.num_same_top1} of {row.num_images}" + (f", {row.num_ties} ties" if row.num_ties else ""),
            ]
            for row in found.agreement
        ],
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
    if flags.json:
        answer = {
            "path": str(found.path),
            "files": [str(path) for path in found.files],
            "compared_on": found.compared_on,
            "agreement": [asdict(row) for row in found.agreement],
            "rounding": None if found.rounding is None else asdict(found.rounding),
            "sheet": json.loads(sheet.text()),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0
