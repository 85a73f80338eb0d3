"""What tests of commands type, and folders with something wrong in them."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Run = Callable[..., tuple[int, str, str]]
"""A command with its words; returns exit code, stdout and stderr."""
FAST = (
    *("--model.name", "test_resnet", "--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8"),
    *("--data.workers", "0", "--output.tracker", "none", "--runtime.threads", "1"),
)
"""Settings of a training that takes no time."""


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def break_folder(root: Path, fault: str) -> None:
    picture = root / "train" / "red" / "03.jpg"
    if fault == "empty class":
        (root / "train" / "green").mkdir()
    elif fault == "class only in val":
        shutil.copytree(root / "val" / "red", root / "val" / "green")
    elif fault == "text named jpg":
        picture.write_text("this is no picture")
    elif fault == "truncated":
        picture.write_bytes(picture.read_bytes()[:400])
    elif fault == "one class":
        shutil.rmtree(root / "train" / "blue")
        shutil.rmtree(root / "val" / "blue")
    elif fault == "bomb":
        bomb(picture)


def bomb(path: Path) -> None:
    # 30,000 x 30,000 pixels in a header, without the pixels.
    Image.new("L", (8, 8)).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
