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
| truncated, not a picture     | BadImage                                           |
| JPEG with wrong bytes inside | what Pillow makes of it; `decode_with_flaw` tells  |
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fixres.errors import UserError, as_text
from fixres.resolution import Alpha, Exif

MAX_PIXELS = 178_956_970
"""Twice Pillow's warning level, where Pillow itself refuses; simplejpeg has no limit of its own."""

DECODER = f"simplejpeg {simplejpeg.__version__}, Pillow {PIL.__version__}"

_JPEG_START = b"\xff\xd8\xff"
_START_OF_SCAN = 0xDA
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
    """Return what `decode` does, and what libjpeg says of wrong bytes inside a JPEG; nothing of a sound picture.

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
            return _decode_pillow(data, name, exif, alpha), flaw
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
        BadImage: more pixels than allowed. Every decode with simplejpeg comes after this check: it has no limit.
    """
    if not data.startswith(_JPEG_START):
        return None
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(name, width, height)
    return (width, height) if colourspace in ("YCbCr", "Gray") else None


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, 1 to 8; 1 where there is none."""
    # Opening the file again for its tags costs as much as a small decode, so only where there can be any.
    head = data[: _head_length(data)]
    if b"Exif\0\0" not in head and b"tiff:Orientation" not in head:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as tagged:
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


def _decode_pillow(data: bytes, name: str, exif: Exif, alpha: Alpha) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        _check_pixels(name, *opened.size)
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
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit(image: Image.Image, alpha: Alpha) -> Image.Image:
    grey = np.asarray(image).astype(np.int64)
    scaled = (np.clip(grey, 0, 65535) + 128) // 257
    transparent = image.info.get("transparency")
    if alpha == "white" and isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
