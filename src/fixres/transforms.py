"""From a picture to the square the network sees, at test time and in training.

The test-time crop is one Pillow call that crops and resizes together, within one grey level of torchvision's
`Resize` followed by `CenterCrop` (99.9 % of the values); `exact` does the two steps and is equal bit for bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2

from fixres.config import Stage
from fixres.resolution import Preprocess, Triple

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_QUARTER_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_RATIO = (3 / 4, 4 / 3)
_LONGEST_STRIP = 100
_JITTER = {"jitter": 0.3, "v2": 0.05}


def evaluation_crop(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Return the test-time view of an RGB picture, uint8 `[3, S, S]` (channels last in memory)."""
    return _tensor(_test_view(image, preprocess))


def train_crop(image: Image.Image, stage: Stage, preprocess: Preprocess) -> Tensor:
    """Return one augmented training view of an RGB picture, uint8 `[3, S, S]` with S = preprocess.size.

    All chance comes from torch's default CPU generator. The order is resize, flip, colour, shifted crop.
    """
    resample = _RESAMPLE[preprocess.interpolation]
    if stage.crop == "center":
        if stage.augment == "v2" and preprocess.resize in ("shorter", "height"):
            return _tensor(_shifted_crop(_augment(_resize(image, preprocess), stage.augment), preprocess.size))
        view = _test_view(image, preprocess)
    elif stage.crop == "random":
        view = _random_resized_crop(image, preprocess.size, stage.crop_scale, resample)
    else:
        view = _padded_crop(image, preprocess.size, resample)
    return _tensor(_augment(view, stage.augment))


def normalise(images: Tensor, mean: Triple, std: Triple) -> Tensor:
    """Return float32 `[B, 3, S, S]` with (x / 255 - mean) / std per channel, on the images' device and layout."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).view(3, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(3, 1, 1)
    return images.to(torch.float32).mul_(scale).sub_(shift)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _test_view(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    size = preprocess.size
    resample = _RESAMPLE[preprocess.interpolation]
    if preprocess.resize == "squash":
        return image if image.size == (size, size) else image.resize((size, size), resample)
    if preprocess.resize == "pad":
        return _letterbox(image, preprocess)
    width, height = _resized(image, preprocess)
    # Enlarging saves nothing in one call, and its rounding would differ by 2 levels here and there.
    if preprocess.resize == "height" or preprocess.exact or width >= image.width:
        return _center_crop(_resize(image, preprocess), size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    scale_x, scale_y = image.width / width, image.height / height
    # Rounding may put the far edge a hair outside the picture, which Pillow refuses.
    right, bottom = min((left + size) * scale_x, image.width), min((top + size) * scale_y, image.height)
    return image.resize((size, size), resample, box=(left * scale_x, top * scale_y, right, bottom))


def _resized(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    """Return width and height in pixels before the crop, truncated like torchvision's `Resize`."""
    width, height, side = image.width, image.height, preprocess.resize_size
    if preprocess.resize == "height" or width > height:
        return max(1, int(side * width / height)), side
    return side, int(side * height / width)


def _resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    image = _without_far_ends(image)
    size = _resized(image, preprocess)
    return image if size == image.size else image.resize(size, _RESAMPLE[preprocess.interpolation])


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Cut a strip to its middle: resizing all of a 30,000 x 1 picture by its short side would take gigabytes."""
    limit = _LONGEST_STRIP * min(image.size)
    if max(image.size) <= limit:
        return image
    width, height = min(image.width, limit), min(image.height, limit)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the centre like torchvision's `CenterCrop`: a side that is too short is padded with black first."""
    left, top = _center_offset(image.width, size), _center_offset(image.height, size)
    return image.crop((left, top, left + size, top + size))


def _center_offset(length: int, size: int) -> int:
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _letterbox(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    size = preprocess.size
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    resized = image.resize((width, height), _RESAMPLE[preprocess.interpolation])
    red, green, blue = (round(255 * value) for value in preprocess.mean)
    square = Image.new("RGB", (size, size), (red, green, blue))
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def _random_resized_crop(
    image: Image.Image, size: int, scale: tuple[float, float], resample: Image.Resampling
) -> Image.Image:
    top, left, height, width = RandomResizedCrop.get_params(image, scale, _RATIO)
    return image.resize((size, size), resample, box=(left, top, left + width, top + height))


def _padded_crop(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the shorter side to `size`, pad by an eighth with black, cut out a random square."""
    image = _without_far_ends(image)
    shortest = min(image.size)
    width, height = (int(size * side / shortest) for side in image.size)
    resized = image if image.size == (width, height) else image.resize((width, height), resample)
    pad = size // 8
    left = _draw(width - size + 2 * pad + 1) - pad
    top = _draw(height - size + 2 * pad + 1) - pad
    return resized.crop((left, top, left + size, top + size))


def _augment(image: Image.Image, policy: str) -> Image.Image:
    if policy in ("none", "v1"):
        return image
    if _draw(2):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if policy == "dihedral":
        if _draw(2):
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        turn = _QUARTER_TURNS[_draw(4)]
        image = image if turn is None else image.transpose(turn)
    return _jitter(_JITTER[policy])(image) if policy in _JITTER else image


@cache
def _jitter(strength: float) -> v2.ColorJitter:
    return v2.ColorJitter(strength, strength, strength)


def _shifted_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop at centre height, moved left or right by up to the whole margin, as FixRes' second test augmentation does.

    With n uniform on 0 ... left0 and a random sign the centre is drawn twice as often as every other offset.
    """
    centre = round((image.width - size) / 2)
    if centre <= 0:
        return _center_crop(image, size)
    shift = _draw(centre + 1)
    left = centre + shift if _draw(2) else centre - shift
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _draw(num: int) -> int:
    """Return a uniform integer in 0 ... num - 1 from torch's default generator."""
    return int(torch.randint(num, ()).item())
