"""`synthetic:classes=4,images=64[,size=64][,seed=0]` - drawn pictures for tests and first steps.

The class decides shape and colour; position, apparent size, background and aspect ratio vary. A picture is a function
of its path and the settings.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageDraw

from fixres.config.recipe import Data
from fixres.data.sampling import uniforms
from fixres.data.sources.uri import Scheme
from fixres.data.splits import Names, Split
from fixres.errors import UserError, did_you_mean
from fixres.resolution import Alpha, Exif

_SHAPES = ("disc", "square", "triangle", "ring", "cross")
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Synthetic:
    """Settings of the generated collection; `images` counts the training split, val and test have a third each."""

    classes: int = 4
    images: int = 64
    size: int = 64
    seed: int = 0

    def class_names(self) -> tuple[str, ...]:
        """Return the names, numbered so that they sort in the order of the labels."""
        width = len(str(self.classes - 1))
        return tuple(f"{k:0{width}}-{_SHAPES[k % len(_SHAPES)]}" for k in range(self.classes))

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture that `SPLIT/CLASS/NUMBER` names."""
        split, name, number = path.split("/")
        label = int(name.split("-")[0])
        chance = uniforms(8, self.seed, _SPLITS.index(split), label, int(number))
        long_side = round(self.size * (1 + 0.5 * chance[0]))
        width, height = (long_side, self.size) if chance[1] < 0.5 else (self.size, long_side)
        image = Image.new("RGB", (width, height), _colour(chance[2], 0.25, 0.35 + 0.3 * chance[3]))
        radius = self.size * (0.18 + 0.2 * chance[4])
        x = radius + chance[5] * (width - 2 * radius)
        y = radius + chance[6] * (height - 2 * radius)
        colour = _colour((label + 0.3 * chance[7]) / self.classes, 0.9, 0.95)
        _draw(ImageDraw.Draw(image), _SHAPES[label % len(_SHAPES)], (x, y, radius), colour)
        return image

    def stamp(self, paths: Names) -> str:
        """Return the settings, which decide every picture."""
        return repr(self)


def open_synthetic(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the three splits and no notes.

    Raises:
        UserError: an unknown setting, or a value that is no positive integer.
    """
    settings = _parse(body)
    names = settings.class_names()
    splits = {}
    for split in _SPLITS:
        num = settings.images if split == "train" else max(settings.classes, round(settings.images / 3))
        labels = np.arange(num, dtype=np.int64) % settings.classes
        paths = Names(f"{split}/{names[label]}/{number:05}" for number, label in enumerate(labels.tolist()))
        splits[split] = Split(split, names, labels, paths, settings, data.exif, data.alpha)
    return f"synthetic:{','.join(f'{f.name}={getattr(settings, f.name)}' for f in fields(settings))}", splits, []


def _parse(body: str) -> Synthetic:
    allowed = [field.name for field in fields(Synthetic)]
    example = "  for example synthetic:classes=4,images=64,size=64,seed=0"
    values: dict[str, int] = {}
    for item in filter(None, body.split(",")):
        key, _, value = item.partition("=")
        if key not in allowed:
            raise UserError(f"synthetic: has no setting '{key}'{did_you_mean(key, allowed)}\n{example}")
        if not value.isdecimal() or (int(value) < 1 and key != "seed"):
            raise UserError(f"synthetic: {key} must be a positive integer, got '{value}'\n{example}")
        values[key] = int(value)
    settings = Synthetic(**values)
    if settings.images < settings.classes:
        raise UserError(f"synthetic: {settings.images} images cannot show {settings.classes} classes\n{example}")
    return settings


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    return red, green, blue


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, place: tuple[float, float, float], colour: tuple[int, int, int]
) -> None:
    x, y, radius = place
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "disc":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        corners = [(x + radius * math.sin(a), y - radius * math.cos(a)) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
        draw.polygon(corners, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=max(1, round(radius / 3)))
    else:
        arm = radius / 3
        draw.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        draw.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)


SCHEME = Scheme("synthetic", "synthetic:classes=4", "drawn pictures, for tests and first steps", open_synthetic)
