"""Small collections of coloured pictures in folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

COLOURS = {"apple": (200, 10, 10), "pear": (10, 200, 10), "plum": (90, 10, 120)}


def fill(root: Path, counts: Mapping[str, int]) -> Path:
    """Write that many small pictures into every folder, `{"train/apple": 3}`, each in its class's colour."""
    for folder, count in counts.items():
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for k in range(count):
            Image.new("RGB", (6, 4), COLOURS.get(place.name, (9, 9, 9))).save(place / f"{k:03}.png")
    return root


def three_splits(root: Path) -> Path:
    """Write a collection with train, val and test of two classes."""
    return fill(root, {f"{s}/{c}": n for s, n in (("train", 5), ("val", 2), ("test", 3)) for c in ("apple", "pear")})
