"""How a picture is seen in an evaluation beyond the plain centre crop: several crops at once, or spoiled on purpose.

| `--tta` | what is averaged, as probabilities                                                          |
| ------- | ------------------------------------------------------------------------------------------- |
| `flip`  | the centre crop and its mirror image                                                        |
| `five`  | the centre crop and the four corner crops of the resized picture                            |
| `ten`   | these five and their mirror images                                                          |

| `--corrupt` | what is done to every crop, the 8-bit square the network sees                           |
| ----------- | --------------------------------------------------------------------------------------- |
| `jpeg=Q`    | stored as a JPEG of quality Q (1 to 95, halved colour) by Pillow and read again         |
| `blur=R`    | blurred with Pillow's Gaussian, standard deviation R pixels                             |
| `noise=D`   | normal noise of standard deviation D (a share of white, 0 to 1) is added to every value, |
|             | then clipped and rounded; the draws depend on the picture's path alone                  |
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from fixres.config.choices import Tta
from fixres.data.transforms import evaluation_crop, five_crops
from fixres.errors import UserError, did_you_mean
from fixres.resolution import Preprocess

_RANGES = {"jpeg": (1, 95), "blur": (0.01, 100), "noise": (0.001, 1)}


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture, and how much."""

    name: str
    strength: float

    def __str__(self) -> str:
        return f"{self.name}={self.strength:g}"

    def apply(self, pixels: np.ndarray, key: int) -> np.ndarray:
        """Return uint8 `[S, S, 3]` spoiled; `key` decides the noise."""
        if self.name == "noise":
            drawn = np.random.default_rng(key).standard_normal(pixels.shape, dtype=np.float32)
            noisy: np.ndarray = np.clip(np.rint(pixels + np.float32(255 * self.strength) * drawn), 0, 255)
            return noisy.astype(np.uint8)
        image = Image.fromarray(pixels)
        if self.name == "blur":
            return np.asarray(image.filter(ImageFilter.GaussianBlur(self.strength)))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(self.strength), subsampling="4:2:0")
        return np.asarray(Image.open(buffer).convert("RGB"))


@dataclass(frozen=True)
class View(Preprocess):
    """A preprocessing with several crops, or with spoiled ones."""

    tta: Tta = "none"
    corruption: Corruption | None = None

    def is_mirrored(self) -> bool:
        """Return whether every crop is seen a second time, mirrored."""
        return self.tta in ("flip", "ten")


def make_view(preprocess: Preprocess, tta: Tta = "none", corruption: Corruption | None = None) -> Preprocess:
    """Return `preprocess` with the crops of `tta` and a corruption; itself where there is neither.

    Raises:
        UserError: five crops of a preprocessing that shows the whole picture already.
    """
    if tta == "none" and corruption is None:
        return preprocess
    if tta in ("five", "ten") and preprocess.resize in ("squash", "pad"):
        raise UserError(
            f"--tta {tta} needs a picture larger than the crop, and resize {preprocess.resize} leaves nothing around "
            "it\n  allowed here: none, flip"
        )
    plain = {field.name: getattr(preprocess, field.name) for field in fields(Preprocess)}
    return View(**plain, tta=tta, corruption=corruption)


def num_crops(preprocess: Preprocess) -> int:
    """Return how many crops of a picture `crops_of` makes; mirror images, made later, do not count."""
    return 5 if isinstance(preprocess, View) and preprocess.tta in ("five", "ten") else 1


def crops_of(image: Image.Image, preprocess: Preprocess, path: str) -> tuple[Tensor, ...]:
    """Return `num_crops` crops uint8 `[3, S, S]` of an RGB picture, the centre first."""
    if not isinstance(preprocess, View):
        return (evaluation_crop(image, preprocess),)
    crops = five_crops(image, preprocess) if num_crops(preprocess) == 5 else (evaluation_crop(image, preprocess),)
    corruption = preprocess.corruption
    if corruption is None:
        return crops
    key = zlib.crc32(path.encode("utf-8", "surrogateescape"))
    spoiled = [corruption.apply(c.permute(1, 2, 0).numpy(), key * 8 + place) for place, c in enumerate(crops)]
    return tuple(torch.from_numpy(np.array(pixels)).permute(2, 0, 1) for pixels in spoiled)


def parse_corruptions(text: str) -> tuple[Corruption, ...]:
    """Read `jpeg=30,blur=2,noise=0.1`; an empty text is none.

    Raises:
        UserError: an unknown name, or a strength that is no number or out of range.
    """
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, value = word.partition("=")
        if name not in _RANGES:
            raise UserError(f"--corrupt {word}{did_you_mean(name, _RANGES)}\n  {_allowed()}")
        low, high = _RANGES[name]
        try:
            strength = float(value)
        except ValueError:
            strength = -1
        if not low <= strength <= high or (name == "jpeg" and strength != int(strength)):
            raise UserError(f"--corrupt {word}: the strength of {name} lies in {low:g} to {high:g}\n  {_allowed()}")
        found.append(Corruption(name, strength))
    return tuple(dict.fromkeys(found))


def _allowed() -> str:
    return "allowed: jpeg=1..95 (quality), blur=PIXELS, noise=SHARE_OF_WHITE, several by commas"


def views_at(
    preprocess: Preprocess, sizes: Sequence[int], tta: Tta, corruptions: Sequence[Corruption]
) -> list[Preprocess]:
    """Return what an evaluation looks at: every size as it is, and every size under every corruption."""
    kinds: list[Corruption | None] = [None, *corruptions]
    return [make_view(preprocess.at(size), tta, corruption) for size in sizes for corruption in kinds]
