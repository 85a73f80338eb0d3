"""Encoded bytes to an RGB picture: the one table of what every odd file means.

JPEG goes through simplejpeg, which is faster and pixel-identical to Pillow at full size; whatever it does not take
(CMYK, unusual subsampling, recoverable damage) and every other format goes through Pillow.

| file                         | becomes                                            |
| ---------------------------- | -------------------------------------------------- |
| EXIF orientation             | turned upright (`exif="ignore"`: as stored, except |
|                              | TIFF, which Pillow always turns)                   |
| 16-bit grey                  | scaled by 1 / 257                                  |
| transparency, also palettes  | over white (`alpha="ignore"`: alpha dropped)       |
| animation                    | its first frame                                    |
| CMYK, palette, grey          | RGB                                                |
| more than 178,956,970 pixels | BadImage, decided from the header                  |
| JPEG of too many scans       | BadImage, decided by counting them (`MAX_WORK`)    |
| no ordinary file, over 1 GiB | BadImage, before it is read (`read_file`)          |
| EPS and others that start    | BadImage: `FORMATS` are all that is read           |
| other programs               |                                                    |
| truncated, not a picture     | BadImage                                           |
| JPEG with wrong bytes inside | what Pillow makes of it; `decode_with_flaw` tells  |
| PNG with texts or profiles   | its pixels, without these; `decode_with_flaw`      |
| that Pillow refuses          | tells                                              |
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fixres.data.picture_formats import FORMATS
from fixres.data.png_metadata import without_metadata
from fixres.errors import UserError, as_text
from fixres.resolution import Alpha, Exif

MAX_PIXELS = 178_956_970
"""Twice Pillow's warning level, where Pillow itself refuses; simplejpeg has no limit of its own."""

MAX_FILE_BYTES = 1 << 30
"""Bytes of the largest file that is read as a picture."""
FEW_SCANS = 100
"""Scans of a progressive JPEG that are never too many; encoders write about ten."""
MAX_WORK = 5_000_000_000
"""Pixels times scans beyond which a JPEG of more than `FEW_SCANS` is refused: about half a second of decoding."""

DECODER = f"simplejpeg {simplejpeg.__version__}, Pillow {PIL.__version__}"

LEFT_OUT = "decoded without its metadata, which cannot be read: "
"""How the flaw of a picture begins whose pixels are sound."""

_JPEG_START = b"\xff\xd8\xff"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""In the data of a scan, what is neither a stuffed byte nor a restart."""
_STRIP_PIXELS = 1 << 20
"""Pixels converted at a time where an intermediate is larger than the picture."""
_PIXEL_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression sequence")
"""How libjpeg's warnings begin that speak of the pixels; simplejpeg refuses for other reasons too."""
_PHONE_PICTURES = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(UserError):  # noqa: N818 - named for what it says
    """A picture that cannot be read. The message names it and the reason, in one line."""

    def __init__(self, name: str, reason: str) -> None:
        # A file name may hold bytes that no terminal or log can encode.
        self.name = as_text(name)
        self.reason = reason
        super().__init__(f"{self.name}: {reason}")

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return BadImage, (self.name, self.reason)


def decode(data: bytes, name: str, exif: Exif = "apply", alpha: Alpha = "white") -> Image.Image:
    """Return the RGB picture in `data`; `name` appears in errors only.

    Raises:
        BadImage: not a picture, damaged, or too large.
    """
    return decode_with_flaw(data, name, exif, alpha)[0]


def decode_with_flaw(data: bytes, name: str, exif: Exif = "apply", alpha: Alpha = "white") -> tuple[Image.Image, str]:
    """Return what `decode` does, and what is wrong: what libjpeg says of wrong bytes inside a JPEG, or `LEFT_OUT`.

    Nothing is said of a sound picture.

    Raises:
        BadImage: not a picture, damaged beyond decoding, or too large.
    """
    if not data:
        raise BadImage(name, "the file is empty")
    image, flaw = _decode_jpeg(data, name, exif)
    if image is not None:
        return image, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, left_out = _in_spite_of_metadata(data, lambda one: _decode_pillow(one, name, exif, alpha))
            return image, f"{LEFT_OUT}{left_out}" if left_out else flaw
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(name, _what_instead(data)) from None
    except Image.DecompressionBombError:
        raise BadImage(name, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever a damaged file makes them trip over
        reason = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in reason.lower()
        raise BadImage(name, "the file is truncated" if truncated else f"damaged picture ({reason})") from None


def jpeg_size(data: bytes, name: str) -> tuple[int, int] | None:
    """Return width and height of a JPEG as stored, or None where simplejpeg cannot decode it, which asks Pillow.

    Raises:
        BadImage: more pixels, or more scans of so many, than allowed. Every decode with simplejpeg comes after this
            check: it has no limit.
    """
    if not data.startswith(_JPEG_START):
        return None
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(name, width, height)
    check_scans(data, name, width * height)
    return (width, height) if colourspace in ("YCbCr", "Gray") else None


def check_scans(data: bytes, name: str, pixels: int) -> None:
    """Refuse a JPEG that takes long to decode for its size: every scan of a progressive one goes over all its pixels.

    Raises:
        BadImage: more than `FEW_SCANS`, and more than `MAX_WORK` of scans times pixels.
    """
    # Counting the bytes of the marker is quick and never too low; thumbnails and what lies behind the picture count
    # too, so only a large count is looked into.
    if data.count(b"\xff\xda") <= FEW_SCANS:
        return
    scans = _num_scans(data)
    if scans > FEW_SCANS and scans * pixels > MAX_WORK:
        raise BadImage(name, f"{scans:,} scans of {pixels:,} pixels would take too long to decode")


def _num_scans(data: bytes) -> int:
    """Return how many scans there are up to the end of the picture."""
    place, scans = 2, 0
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _END_OF_IMAGE:
        if data[place + 1] == 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _START_OF_SCAN:
            scans += 1
            found = _MARKER.search(data, place)
            place = len(data) if found is None else found.end() - 2
    return scans


def path_on_disk(path: str | Path) -> str | Path:
    """Return the path, in another Unicode form where only that one is there: é is one letter to some, two to others."""
    if os.path.lexists(path):
        return path
    forms = (unicodedata.normalize(form, os.fspath(path)) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.lexists(other)), path)


def read_file(path: str | Path, name: str) -> bytes:
    """Return the bytes of a picture's file, which may be there under another Unicode form of its name.

    Raises:
        BadImage: it is no ordinary file (a pipe would be waited for, a device has no end), is larger than any picture,
            or has a name that no file can have.
        OSError: it cannot be read.
    """
    # Without waiting: opening a pipe that nobody writes to would never return.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            descriptor = os.open(path_on_disk(path), flags)
    except ValueError as error:
        # A NUL byte in a name.
        raise BadImage(name, str(error)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(name, "is no ordinary file")
        if status.st_size > MAX_FILE_BYTES:
            raise BadImage(name, f"{status.st_size:,} bytes are more than the {MAX_FILE_BYTES:,} of any picture here")
        return file.read(MAX_FILE_BYTES)


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, 1 to 8; 1 where there is none."""
    # Opening the file again for its tags costs as much as a small decode, so only where there can be any.
    head = data[: _head_length(data)]
    if b"Exif\0\0" not in head and b"tiff:Orientation" not in head:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as tagged:
                return _orientation(tagged)
    except Exception:  # noqa: BLE001 - the pixels can be decoded; tags that cannot be read turn nothing
        return 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture upright."""
    transpose = _TURNS.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _what_instead(data: bytes) -> str:
    """Return what data are that no decoder here takes."""
    if data[4:8] == b"ftyp" and data[8:12] in _PHONE_PICTURES:
        return "HEIC is not a picture format that is read here: convert it to JPEG (magick IN.heic OUT.jpg)"
    return "not a picture in any format that can be read"


def _decode_jpeg(data: bytes, name: str, exif: Exif) -> tuple[Image.Image | None, str]:
    """Return the picture, or None where Pillow has to decide and, where that is for damage to the pixels, which."""
    if jpeg_size(data, name) is None:
        return None, ""
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGBA")
    except ValueError as error:
        return None, str(error) if str(error).startswith(_PIXEL_DAMAGE) else ""
    image = _sharing(pixels)
    return (turn(image, orientation_of(data)) if exif == "apply" else image), ""


def _sharing(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return opaque pixels uint8 `[height, width, 4]` as an RGB picture in the same memory.

    Pillow keeps RGB in four bytes a pixel, so it can take over RGBA that is declared to have no alpha. Three bytes a
    pixel it would spread into a second copy, which costs a sixth of resizing the picture.
    """
    height, width, _ = pixels.shape
    image = Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1)
    try:
        image.im.setmode("RGB")
        return image._new(image.im)
    except (AttributeError, ValueError):
        # Pillow promises these operations to itself only.
        return Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1).convert("RGB")


def _head_length(data: bytes) -> int:
    """Return where the segments end and the picture begins; all of the data where the segments make no sense."""
    place = 2
    while data[place : place + 1] == b"\xff" and len(data) >= place + 4:
        if data[place + 1] == _START_OF_SCAN:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return len(data)


def open_header(data: bytes) -> Image.Image:
    """Return the picture as Pillow opens it, not decoded yet; without its metadata where Pillow refuses it for these.

    Raises:
        Exception: whatever Pillow's parsers raise.
    """
    return _in_spite_of_metadata(data, lambda encoded: Image.open(io.BytesIO(encoded), formats=FORMATS))[0]


def _in_spite_of_metadata(data: bytes, work: Callable[[bytes], Image.Image]) -> tuple[Image.Image, str]:
    """Return what `work` makes of the data, tried again without metadata where it fails, and what was left out then."""
    try:
        return work(data), ""
    except (BadImage, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:
        # Whatever Pillow's parsers raise; it stands where there is no metadata to blame.
        reduced, left_out = without_metadata(data)
        if not left_out:
            raise
        return work(reduced), left_out


def _decode_pillow(data: bytes, name: str, exif: Exif, alpha: Alpha) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        _check_pixels(name, *opened.size)
        if opened.format in ("JPEG", "MPO"):
            check_scans(data, name, opened.width * opened.height)
        opened.load()
        orientation = _orientation(opened) if exif == "apply" else 1
        return turn(_to_rgb(opened, name, alpha), orientation)


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImage(name, f"{width} x {height} is more than {MAX_PIXELS:,} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged tags do not make the picture unreadable
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _to_rgb(image: Image.Image, name: str, alpha: Alpha) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _sixteen_bit(image, alpha)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "fractions"
        raise BadImage(name, f"32-bit {kind} per pixel have no defined white: save it with 8 or 16 bits")
    if alpha == "ignore":
        # Without the key Pillow would warn about palettes, and convert the same.
        image.info.pop("transparency", None)
        return image.convert("RGB")
    if image.has_transparency_data:
        return _in_strips(image, _over_white)
    return image.convert("RGB")


def _in_strips(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return the RGB picture that `to_rgb` makes, a strip at a time: intermediates stay small beside the picture."""
    whole = Image.new("RGB", image.size)
    height = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, height):
        whole.paste(to_rgb(image.crop((0, top, image.width, min(top + height, image.height)))), (0, top))
    return whole


def _over_white(strip: Image.Image) -> Image.Image:
    layer = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _sixteen_bit(image: Image.Image, alpha: Alpha) -> Image.Image:
    transparent = image.info.get("transparency")

    def to_rgb(strip: Image.Image) -> Image.Image:
        grey = np.asarray(strip).astype(np.int64)
        scaled = (np.clip(grey, 0, 65535) + 128) // 257
        if alpha == "white" and isinstance(transparent, int):
            scaled[grey == transparent] = 255
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")

    return _in_strips(image, to_rgb)
