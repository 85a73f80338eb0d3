"""Does the file give the network's answers? On pictures, through the product's preprocessing, at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.sources.synthetic import open_synthetic
from fixres.data.transforms import evaluation_crop, normalise
from fixres.data.unlabelled import Pictures, open_picture
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.measure import open_for
from fixres.inference.export.formats.table import find_format
from fixres.inference.export.metadata import ExportSheet

NUM_PICTURES = 16
AGREEMENT_HEADER = ["height x width", "pictures", "largest difference", "of a range of", "same best class"]


@dataclass(frozen=True)
class Agreement:
    """What the comparison at one size found."""

    height: int
    width: int
    num_images: int
    max_difference: float
    """Between any two outputs."""
    output_range: float
    """Largest output minus smallest, of the network."""
    num_same_top1: int
    num_ties: int
    """Pictures whose two best outputs are closer than the tolerance."""

    def cells(self, with_ties: bool = False) -> list[str]:
        """Return the row of a table under `AGREEMENT_HEADER`."""
        ties = f", {self.num_ties} ties" if with_ties and self.num_ties else ""
        return [
            f"{self.height} x {self.width}",
            str(self.num_images),
            f"{self.max_difference:.1e}",
            f"{self.output_range:.3g}",
            f"{self.num_same_top1} of {self.num_images}{ties}",
        ]


def sample_pictures(product: Product, data: str | None, pictures: Sequence[str]) -> tuple[list[Image.Image], str]:
    """Return RGB pictures to compare on, and in words where they come from.

    Raises:
        UserError: the pictures or the data named by the user cannot be read.
    """
    if pictures:
        found = list(islice(Pictures(pictures), NUM_PICTURES))
        return [open_picture(path, product.preprocess) for path in found], f"{len(found)} pictures given"
    why = "no data is stored with the product"
    stored = product.details.get("data", {}).get("uri")
    if data or stored:
        try:
            collection = open_for(product, SplitRequest(data=data))
            split = collection.split(collection.report)
            chosen = np.unique(np.linspace(0, len(split) - 1, NUM_PICTURES).round().astype(int))
            images = [split.read(int(i)) for i in chosen]
        except (UserError, BadImage):
            if data:
                raise
            why = f"{stored} cannot be read here"
        else:
            return images, f"{len(images)} pictures of the {split.name} split of {collection.uri}"
    _, splits, _ = open_synthetic(Data(uri="synthetic:"), "classes=8,images=16,size=240")
    drawn = [splits["train"].read(i) for i in range(NUM_PICTURES)]
    return drawn, f"{len(drawn)} generated pictures ({why}; --data or --pictures names real ones)"


def shapes_to_check(sheet: ExportSheet) -> list[tuple[int, int]]:
    """Return heights and widths: the test size, another square, and one that is no square; as far as they are legal."""
    size, rule = sheet.size, sheet.sizes
    if rule.fixed is not None:
        return [(size, size)]
    step = max(rule.step, 32 if size % 32 == 0 else 1)
    others = [sheet.train_size, size + step, size - step, size + rule.step]
    other = next(s for s in others if s != size and rule.accept(s, s))
    # An odd number of steps apart, where the file takes any size.
    wide = size + (37 if rule.step == 1 else rule.step)
    return [(size, size), (other, other), (size, wide)]


def views(images: Sequence[Image.Image], product: Product, height: int, width: int) -> Tensor:
    """Return uint8 `[B, 3, height, width]`: the test-time view at the longer side, its middle where it is no square."""
    side = max(height, width)
    preprocess = product.preprocess.at(side)
    squares = torch.stack([evaluation_crop(image, preprocess) for image in images])
    top, left = (side - height) // 2, (side - width) // 2
    return squares[:, :, top : top + height, left : left + width].contiguous()


def file_inputs(pixels: Tensor, sheet: ExportSheet) -> Tensor:
    """Return float32 `[B, 3, H, W]` in the range the file wants, of uint8 pixels."""
    if sheet.normalised_inside:
        return pixels.contiguous().to(torch.float32)
    return normalise(pixels.contiguous(), sheet.mean, sheet.std).contiguous()


def compare(
    run: Callable[[np.ndarray], np.ndarray],
    eager: nn.Module,
    images: Sequence[Image.Image],
    product: Product,
    sheet: ExportSheet,
    *,
    is_required: bool = True,
) -> list[Agreement]:
    """Return what `run` and the network say to the same pictures, at every shape to check.

    Raises:
        UserError: `is_required`, and they differ by more than the tolerance, or in the best class of a picture that is
            no tie.
    """
    found = []
    for height, width in shapes_to_check(sheet):
        inputs = file_inputs(views(images, product, height, width), sheet)
        with torch.inference_mode():
            wanted = eager(inputs).numpy()
        # One picture alone as well: a file may have been bound to the batch it was traced with.
        given = np.concatenate([run(inputs[:1].numpy()), run(inputs[1:].numpy())])
        row = _agreement(height, width, wanted, given, find_format(sheet.format).tolerance)
        if is_required and (differs := disagreement(row, sheet)):
            raise UserError(
                f"the exported file does not give the network's answers: at {height} x {width} {differs}; nothing was "
                "written\n  another --format may do"
            )
        found.append(row)
    return found


def _agreement(height: int, width: int, wanted: np.ndarray, given: np.ndarray, tolerance: float) -> Agreement:
    if given.shape != wanted.shape:
        raise UserError(f"the file gives outputs {list(given.shape)} where the network gives {list(wanted.shape)}")
    span = float(wanted.max() - wanted.min())
    ordered = np.sort(wanted, axis=1)
    ties = ordered[:, -1] - ordered[:, -2] <= 2 * tolerance * span if wanted.shape[1] > 1 else np.zeros(len(wanted))
    same = wanted.argmax(1) == given.argmax(1)
    difference = float(np.abs(given - wanted).max())
    return Agreement(
        height=height,
        width=width,
        num_images=len(wanted),
        max_difference=difference if np.isfinite(given).all() else float("inf"),
        output_range=span,
        num_same_top1=int(same.sum()),
        num_ties=int((ties & ~same).sum()) if len(wanted) else 0,
    )


def disagreement(row: Agreement, sheet: ExportSheet) -> str:
    """Return in words what is not the same, beyond the tolerance of the format; empty where all is."""
    tolerance = find_format(sheet.format).tolerance * row.output_range
    if row.max_difference > tolerance:
        return f"its outputs differ by {row.max_difference:.1e}, allowed {tolerance:.1e}"
    if row.num_same_top1 + row.num_ties < row.num_images:
        return f"the best class differs for {row.num_images - row.num_same_top1} of {row.num_images} pictures"
    return ""
