"""From a picture to the square the network sees, at test time (`evaluation_view`, as a tensor) and in training."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from fixres.config.recipe import Stage
from fixres.data.evaluation_view import (
    RESAMPLE,
    center_crop,
    center_offset,
    evaluation_view,
    resize,
    without_far_ends,
)
from fixres.data.scaled_decode import Box, ScaledJpeg
from fixres.resolution import Preprocess, Triple

_QUARTER_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)

_JITTER = {"jitter": (0.3, 0.3, 0.3), "v2": (0.05, 0.05, 0.05)}
"""Brightness, contrast and saturation."""
# Made once for each setting.
_trivial, _randaugment = cache(v2.TrivialAugmentWide), cache(v2.RandAugment)
_rotation, _jitter = cache(v2.RandomRotation), cache(v2.ColorJitter)


def evaluation_crop(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Return the test-time view of an RGB picture, uint8 `[3, S, S]` (channels last in memory)."""
    return _tensor(evaluation_view(image, preprocess))


def five_crops(image: Image.Image, preprocess: Preprocess) -> tuple[Tensor, ...]:
    """Return the centre crop and those at top left, top right, bottom left and bottom right of the resized picture.

    They are those of torchvision's `FiveCrop`, the centre first and as `evaluation_crop` makes it; a side shorter than
    the crop is padded with black. uint8 `[3, S, S]` each.
    """
    size, resized = preprocess.size, resize(image, preprocess)
    right, bottom = resized.width - size, resized.height - size
    # A short side has one place only: where the centre crop has it.
    xs = (0, right) if right >= 0 else (center_offset(resized.width, size),) * 2
    ys = (0, bottom) if bottom >= 0 else (center_offset(resized.height, size),) * 2
    corners = [_tensor(resized.crop((x, y, x + size, y + size))) for y in ys for x in xs]
    return (evaluation_crop(image, preprocess), *corners)


def train_crop(image: Image.Image | ScaledJpeg, stage: Stage, preprocess: Preprocess) -> Tensor:
    """Return one augmented training view of an RGB picture, uint8 `[3, S, S]` with S = preprocess.size.

    All chance comes from torch's default CPU generator. The order is crop, trivial or randaugment, rotation, flips,
    colour, erasing; only the shifted crop of v2 comes after the colour, as published.
    """
    if stage.interpolation != "test":
        preprocess = replace(preprocess, interpolation=stage.interpolation)
    if stage.crop == "random":
        return _random_resized_crop(image, stage, preprocess)
    if not isinstance(image, Image.Image):
        raise TypeError(f"crop {stage.crop} needs a decoded picture")
    if stage.crop == "center" and stage.augment == "v2" and preprocess.resize in ("shorter", "height"):
        view = _shifted_crop(_augment(resize(image, preprocess), stage), preprocess.size)
    elif stage.crop == "center":
        view = _augment(evaluation_view(image, preprocess), stage)
    elif stage.crop == "resize":
        view = _augment(_random_place(resize(image, preprocess), preprocess.size), stage)
    else:
        view = _augment(_padded_crop(image, preprocess.size, RESAMPLE[preprocess.interpolation]), stage)
    return _erased(_tensor(view), stage, preprocess)


def _random_resized_crop(image: Image.Image | ScaledJpeg, stage: Stage, preprocess: Preprocess) -> Tensor:
    size, resample = (preprocess.size, preprocess.size), RESAMPLE[preprocess.interpolation]
    box = random_box(image.width, image.height, stage.crop_scale, stage.crop_aspect)
    if isinstance(image, Image.Image):
        view = image.resize(size, resample, box=box)
    else:
        pixels = image.pixels(size, resample, box)
        if is_plain(stage):
            # The way through a Pillow picture costs as much as the resize.
            plain = torch.from_numpy(pixels).permute(2, 0, 1)
            # By torch, which mirrors interleaved colours ten times as fast as numpy.
            return plain.flip(2) if stage.augment == "flip" and _draw(2) else plain
        view = Image.fromarray(pixels)
    return _erased(_tensor(_augment(view, stage)), stage, preprocess)


def is_plain(stage: Stage) -> bool:
    """Return whether pictures are augmented by nothing beyond the crop and a flip."""
    plain = stage.augment in ("none", "v1", "flip")
    return plain and not (stage.vertical_flip or stage.erasing or any(stage.rotation))


def _erased(pixels: Tensor, stage: Stage, preprocess: Preprocess) -> Tensor:
    return _erasing(stage.erasing, preprocess.mean)(pixels) if stage.erasing else pixels


def normalise(images: Tensor, mean: Triple, std: Triple) -> Tensor:
    """Return float32 `[B, 3, S, S]` with (x / 255 - mean) / std per channel, on the images' device and layout."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images.to(torch.float32).mul_(scale.view(3, 1, 1)).sub_(shift.view(3, 1, 1))
    # By rows, because three channels at a time leave a processor's vector units empty: half the time, the same bits.
    num, _, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(num * height, width * 3).to(torch.float32)
    rows.mul_(scale.repeat(width)).sub_(shift.repeat(width))
    return rows.view(num, height, width, 3).permute(0, 3, 1, 2)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def random_box(width: int, height: int, scale: tuple[float, float], aspect: tuple[float, float]) -> Box:
    """Return left, top, right, bottom of a random crop in pixels.

    The draws are those of torchvision's `RandomResizedCrop.get_params`, one by one, at a third of its time; like it,
    ten misses give the largest centre crop within the aspects.
    """
    low, high = _log_aspects(aspect)
    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(*scale).item()
        drawn = torch.empty(1).uniform_(low, high).exp_().item()
        w, h = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < w <= width and 0 < h <= height:
            top = _draw(height - h + 1)
            left = _draw(width - w + 1)
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < min(aspect):
        h = round(width / min(aspect))
    elif width / height > max(aspect):
        w = round(height * max(aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@cache
def _log_aspects(aspect: tuple[float, float]) -> tuple[float, float]:
    low, high = torch.log(torch.tensor(aspect)).tolist()
    return low, high


def _random_place(image: Image.Image, size: int) -> Image.Image:
    """Cut out a square anywhere; a side that is too short is centred on black, as in the centre crop."""
    left, top = (
        _draw(length - size + 1) if length >= size else center_offset(length, size)
        for length in (image.width, image.height)
    )
    return image.crop((left, top, left + size, top + size))


def _padded_crop(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the shorter side to `size`, pad by an eighth with black, cut out a random square."""
    image = without_far_ends(image)
    shortest = min(image.size)
    width, height = (int(size * side / shortest) for side in image.size)
    resized = image if image.size == (width, height) else image.resize((width, height), resample)
    pad = size // 8
    left = _draw(width - size + 2 * pad + 1) - pad
    top = _draw(height - size + 2 * pad + 1) - pad
    return resized.crop((left, top, left + size, top + size))


def _augment(image: Image.Image, stage: Stage) -> Image.Image:
    policy = stage.augment
    if policy == "trivial":
        image = _trivial()(image)
    elif policy == "randaugment":
        image = _randaugment(stage.randaugment_ops, stage.randaugment_magnitude)(image)
    if stage.rotation != (0, 0):
        image = _rotation(stage.rotation)(image)
    if policy not in ("none", "v1") and _draw(2):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if stage.vertical_flip and torch.rand(()).item() < stage.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if policy == "dihedral":
        if _draw(2):
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        turn = _QUARTER_TURNS[_draw(4)]
        image = image if turn is None else image.transpose(turn)
    return _jitter(*_JITTER[policy])(image) if policy in _JITTER else image


@cache
def _erasing(probability: float, mean: Triple) -> v2.RandomErasing:
    """Return the operation on uint8 pixels; the mean colour is what 0 is on normalised ones, to half a level."""
    return v2.RandomErasing(probability, value=tuple(round(255 * channel) for channel in mean))


def _shifted_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop at centre height, moved left or right by up to the whole margin, as FixRes' second test augmentation does.

    With n uniform on 0 ... left0 and a random sign the centre is drawn twice as often as every other offset.
    """
    centre = round((image.width - size) / 2)
    if centre <= 0:
        return center_crop(image, size)
    shift = _draw(centre + 1)
    left = centre + shift if _draw(2) else centre - shift
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _draw(num: int) -> int:
    """Return a uniform integer in 0 ... num - 1 from torch's default generator."""
    return int(torch.randint(num, ()).item())
