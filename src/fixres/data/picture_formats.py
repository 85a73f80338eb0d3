"""The formats of pictures that are read, from every door, and the endings of their files."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module

from PIL import features


def _opens_heif() -> bool:
    """Return whether a plugin of Pillow's for the pictures of phones is installed, and make Pillow know it."""
    for name in ("pillow_heif", "pi_heif"):
        with contextlib.suppress(ImportError):
            import_module(name).register_heif_opener()
            return True
    return False


_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    **({"AVIF": (".avif", ".avifs")} if features.check("avif") else {}),
    **({"HEIF": (".heic", ".heif", ".hif")} if _opens_heif() else {}),
}

FORMATS = tuple(_ENDINGS)
"""What is read, as Pillow calls it. Pillow knows more, some of which start other programs (EPS: Ghostscript)."""

EXTENSIONS = frozenset(ending for endings in _ENDINGS.values() for ending in endings)
"""Endings, in lower case, of the files that are taken for pictures."""

_OTHERS = {
    "HEIC": (".heic",),
    "HEIF": (".heif", ".hif"),
    "AVIF": (".avif", ".avifs"),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "a camera's raw format": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    "Photoshop's format": (".psd",),
}
_UNREAD = {ending: name for name, endings in _OTHERS.items() for ending in endings if ending not in EXTENSIONS}
"""Pictures that are not opened as such; passing them over in silence would lose a whole phone's worth."""


def ending(path: str) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path per file is slow


def unread_format(path: str) -> str:
    """Return the format of a picture that is not read here, by the ending of its name; empty for all else."""
    return _UNREAD.get(ending(path), "")


def how_to_convert(path: str) -> str:
    """Return what to do with a picture whose format is not read here."""
    advice = f"convert to JPEG first, for example with ImageMagick: magick mogrify -format jpg *{ending(path)}"
    return advice + (" (or pip install 'fixres[heic]')" if unread_format(path) in ("HEIC", "HEIF") else "")
