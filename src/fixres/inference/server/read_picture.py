"""What a decoder process does: a stranger's bytes to what the network sees, within limits. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.data.decode import BadImage, decode, jpeg_size, open_header
from fixres.data.evaluation_view import evaluation_view
from fixres.data.picture_formats import FORMATS
from fixres.resolution import Preprocess

BYTES_PER_PIXEL = 17
"""Memory that decoding takes at most: measured, WebP 17, a progressive CMYK JPEG 12, an ordinary JPEG 4."""
_OWN_BYTES = 256 << 20
"""Memory a decoder process may take beside that."""


class Task(NamedTuple):
    """One picture to decode."""

    name: str
    """What messages call it."""
    data: bytes
    views: tuple[Preprocess, ...]
    """How it is fed, for every view that is wanted."""
    max_pixels: int
    """More are refused."""
    free_pixels: int
    """More are not decoded either, but told: it is for the server to say when there is room for them."""


@dataclass(frozen=True)
class Large:
    """A picture that is not decoded yet, for its many pixels."""

    pixels: int


@dataclass(frozen=True)
class Refusal:
    """Why a picture has no views: what the answer to the client says."""

    status: int
    code: str
    message: str


Views = tuple[npt.NDArray[np.uint8], ...]
"""uint8 `[S, S, 3]` each."""


def prepare() -> None:
    """Make this process one that ends when the server says so: signals of a terminal reach all of its processes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def read_picture(task: Task) -> Views | Large | Refusal:
    """Return what the network sees of a picture, or what is told in its place."""
    if not task.data:
        return Refusal(400, "empty_file", f"{task.name} is empty")
    _limit_memory(task.max_pixels)
    try:
        return _read(task)
    except MemoryError:
        return Refusal(413, "too_many_pixels", f"{task.name} needs more memory than there is")


def _limit_memory(pixels: int) -> None:
    """Let the kernel refuse memory beyond what any picture of so many pixels needs."""
    if sys.platform == "linux":
        import resource

        limit = pixels * BYTES_PER_PIXEL + _OWN_BYTES
        # A hard limit below it was set by whoever runs the server.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _read(task: Task) -> Views | Large | Refusal:
    found = _stated_size(task.data, task.name)
    if isinstance(found, Refusal):
        return found
    width, height = found
    if width * height > task.max_pixels:
        return Refusal(
            413,
            "too_many_pixels",
            f"{task.name}: {width} x {height} is more than this server's {task.max_pixels:,} pixels",
        )
    if width * height > task.free_pixels:
        return Large(width * height)
    p = task.views[0]
    try:
        image = decode(task.data, task.name, p.exif, p.alpha)
    except BadImage as error:
        return Refusal(422, "bad_picture", f"{task.name}: {error.reason}")
    return tuple(np.array(evaluation_view(image, view)) for view in task.views)


def _stated_size(data: bytes, name: str) -> tuple[int, int] | Refusal:
    """Return width and height from the header."""
    try:
        found = jpeg_size(data, name)
        if found is not None:
            return found
        with open_header(data) as opened:
            return opened.size
    except BadImage as error:
        return Refusal(413, "too_many_pixels", f"{name}: {error.reason}")
    except Image.DecompressionBombError:
        # Beyond what anything here decodes.
        return Refusal(413, "too_many_pixels", f"{name} has more pixels than are decoded here")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow's parsers raise whatever a damaged header makes them trip over
        return Refusal(415, "not_a_picture", f"{name} is not a picture this server takes ({', '.join(FORMATS)})")
