"""Pictures with structure at every scale, and a folder of them without a fault to look at."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import open_splits
from fixres.data.inspect.check import check
from fixres.data.inspect.check_report import Report
from fixres.data.splits import Split


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Return a picture with structure at every scale, different for every seed."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48):
        noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray((total / 5).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sound_folder(root: Path) -> Path:
    """Return a folder without a fault: two classes, 12 training and 4 test pictures of each."""
    for split, first, count in (("train", 0, 12), ("test", 100, 4)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                put(root / split / name / f"{i:02}.jpg", jpeg(scene(first + 2 * i + label)))
    return root


def paths(report: Report, kind: str) -> list[tuple[str, ...]]:
    """Return the pictures of every finding of a kind."""
    return [tuple(place.path for place in item.pictures) for item in report.findings.get(kind, [])]


def look(root: Path, **options: Any) -> Report:
    """Check a folder in this process."""
    return check(Data(uri=f"folder:{root}"), 0, **options)


def train_split(root: Path) -> Split:
    return open_splits(Data(uri=str(root)))[1]["train"]
