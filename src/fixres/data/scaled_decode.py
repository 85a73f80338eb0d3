"""A JPEG that is decoded once its random crop is known, no larger than the crop needs.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its sides at less cost than in full: its blocks hold frequencies, and the
high ones are left out. That is done as long as the crop keeps at least the pixels that the network asks for, so all
that is missing is what the resize would have filtered away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from fixres.data.decode import decode, jpeg_size, orientation_of, turn
from fixres.resolution import Alpha, Exif

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

_SHRINKS = (8, 4, 2)
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


class ScaledJpeg:
    """A JPEG, not decoded yet. `width` and `height` are those of the upright picture."""

    def __init__(self, data: bytes, name: str, exif: Exif, alpha: Alpha, stored: tuple[int, int]) -> None:
        self.data, self.name, self.exif, self.alpha = data, name, exif, alpha
        self.stored = stored
        self.orientation = orientation_of(data) if exif == "apply" else 1
        self.width, self.height = reversed(stored) if self.orientation >= 5 else stored

    def pixels(self, size: tuple[int, int], resample: Image.Resampling, box: Box) -> npt.NDArray[np.uint8]:
        """Return the part of the upright picture in `box` at `size` (width, height), uint8 `[height, width, 3]`.

        It is torchvision's crop, then its resize: within one level where nothing is scaled, and to half a pixel in
        place where something is.

        Raises:
            BadImage: the data are damaged, or no picture after all.
        """
        box = stored_box(box, self.orientation, self.stored)
        width, height = reversed(size) if self.orientation >= 5 else size
        try:
            decoded = decode_at(self.data, self.stored, shrink_for(box, (width, height)))
        except ValueError:
            # Pillow decides about data that simplejpeg refuses.
            image = decode(self.data, self.name, "ignore", self.alpha).resize((width, height), resample, box=box)
            return np.array(turn(image, self.orientation))
        scale_x, scale_y = decoded.shape[1] / self.stored[0], decoded.shape[0] / self.stored[1]
        left, right = _scaled(box[0], box[2], scale_x, decoded.shape[1])
        top, bottom = _scaled(box[1], box[3], scale_y, decoded.shape[0])
        # Contiguous with the channels last, also on paper: torch resizes that without shuffling planes.
        part = torch.from_numpy(np.ascontiguousarray(decoded[top:bottom, left:right]))[None].permute(0, 3, 1, 2)
        resized = F.interpolate(part, size=(height, width), mode=_MODES[resample], antialias=True)
        pixels: npt.NDArray[np.uint8] = resized.permute(0, 2, 3, 1)[0].numpy()
        return pixels if self.orientation == 1 else np.array(turn(Image.fromarray(pixels), self.orientation))


def open_for_crop(data: bytes, name: str, exif: Exif, alpha: Alpha) -> ScaledJpeg | Image.Image:
    """Return the picture in `data` ready for a random crop: undecoded where it is a JPEG that can be scaled.

    Raises:
        BadImage: not a picture, damaged, or too large; of an undecoded one damage shows in `pixels`.
    """
    stored = jpeg_size(data, name)
    return decode(data, name, exif, alpha) if stored is None else ScaledJpeg(data, name, exif, alpha, stored)


def shrink_for(box: Box, size: tuple[int, int]) -> int:
    """Return by how much a picture may be decoded smaller (1, 2, 4, 8) with `size` pixels or more left in `box`."""
    width, height = box[2] - box[0], box[3] - box[1]
    return next((n for n in _SHRINKS if width >= n * size[0] and height >= n * size[1]), 1)


def stored_box(box: Box, orientation: int, stored: tuple[int, int]) -> Box:
    """Return where `box` of the upright picture lies in the stored one of (width, height), by EXIF orientation."""
    left, top, right, bottom = box
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    width, height = stored
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def decode_at(data: bytes, stored: tuple[int, int], shrink: int) -> npt.NDArray[np.uint8]:
    """Return a JPEG of `stored` (width, height), which `jpeg_size` has checked, at 1/shrink of its sides, RGB.

    Raises:
        ValueError: damaged data.
    """
    width, height = stored
    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, "RGB", min_height=-(-height // shrink), min_width=-(-width // shrink), min_factor=shrink
    )
    return pixels


def _scaled(first: int, last: int, scale: float, limit: int) -> tuple[int, int]:
    """Return a side of a box in scaled pixels; its length is rounded, so a crop that is large enough stays so."""
    length = max(1, round((last - first) * scale))
    start = min(round(first * scale), limit - length)
    return start, start + length
