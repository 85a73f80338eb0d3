"""Drawn pictures, and JPEGs of them in folders."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.splits import Split


def smooth(width: int, height: int, seed: int = 0, grid: tuple[int, int] = (7, 9)) -> Image.Image:
    """Return smooth random colours, drawn on a grid of (rows, columns)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*grid, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def structure(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth structure without any symmetry."""
    return smooth(width, height, seed, (3, 4))


def ramp(width: int, height: int) -> Image.Image:
    """Return a picture whose red and green are its x and y."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2] = np.arange(width), np.arange(height)[:, None], 200
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    """Return the picture as a JPEG with that EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **({"exif": exif} if orientation > 1 else {}), **options)
    return buffer.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Split:
    """Return the training split of a folder with these files in two classes, by turns."""
    for k, (name, data) in enumerate(sorted(files.items())):
        path = root / "train" / "ab"[k % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for cls in "ab":
        (root / "val" / cls).mkdir(parents=True)
        smooth(20, 20).save(root / "val" / cls / "0.png")
    return open_collection(Data(uri=str(root), holdout=0)).split("train")


def mixed_jpegs(root: Path) -> Split:
    """Return 12 JPEGs of 200 x 150 and 150 x 200, some lying on their side."""
    shapes = [(200, 150), (150, 200)]
    return folder_of(
        root, {f"{k:02}.jpg": jpeg(structure(*shapes[k % 2], seed=k), (1, 1, 6, 3)[k % 4]) for k in range(12)}
    )
