"""What every odd file becomes, by pixel value, and what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from fixres.data.decode import MAX_PIXELS, BadImage, decode
from tests.support.pictures import jpeg, smooth

TOP, BOTTOM = (200, 50, 10), (0, 0, 0)
WIDTH, HEIGHT = 50, 40


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """No warning of Pillow's may reach the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def flag() -> Image.Image:
    """Return a picture whose upper half has one colour and whose lower half is black."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[: HEIGHT // 2] = TOP
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the picture as a file of that kind."""
    with io.BytesIO() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(file, kind, **options)
        return file.getvalue()


def halves(image: Image.Image) -> tuple[Any, Any]:
    """Return a pixel of the upper and one of the lower half."""
    assert image.mode == "RGB"
    return image.getpixel((3, 3)), image.getpixel((3, image.height - 4))


def near(pixel: Any, expected: tuple[int, int, int], levels: int = 2) -> bool:
    """Return whether a pixel is within some levels of the expected colour."""
    return all(abs(a - b) <= levels for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "WEBP"])
def test_every_format_gives_its_colours(kind: str) -> None:
    top, bottom = halves(decode(encode(flag(), kind), "a"))
    assert near(top, TOP)
    assert near(bottom, BOTTOM)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 20}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(160, 128), (161, 123), (1, 1), (7, 300)])
def test_jpeg_is_identical_to_pillow(mode: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as reference:
        assert np.array_equal(np.asarray(decode(data, "a")), np.asarray(reference.convert("RGB")))


def test_a_jpeg_is_a_picture_of_its_own() -> None:
    """It is made without a copy of the pixels; nothing that is done with it may show that."""
    data = encode(flag(), "JPEG")
    first, second = decode(data, "a"), decode(data, "a")
    assert first == second == pickle.loads(pickle.dumps(first)) == first.copy()
    assert first.convert("RGBA").getextrema()[3] == (255, 255)
    first.paste((1, 2, 3), (0, 0, WIDTH, HEIGHT))
    assert first.getcolors() == [(WIDTH * HEIGHT, (1, 2, 3))]
    assert near(halves(second)[0], TOP)


def test_a_pillow_that_cannot_share_memory_gives_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(flag(), "JPEG")
    expected, frombuffer = decode(data, "a"), Image.frombuffer

    def without_setmode(*args: Any) -> Any:
        return SimpleNamespace(im=object(), convert=frombuffer(*args).convert)

    monkeypatch.setattr(Image, "frombuffer", without_setmode)
    assert decode(data, "a") == expected


def test_cmyk_jpeg_keeps_its_colours() -> None:
    top, bottom = halves(decode(encode(flag().convert("CMYK"), "JPEG"), "a"))
    assert near(top, TOP)
    assert near(bottom, BOTTOM)


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<i4")])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str, dtype: str) -> None:
    pixels = np.full((HEIGHT, WIDTH), 100 * 257, dtype=dtype)
    pixels[HEIGHT // 2 :] = 65535
    mode = {"<u2": "I;16", ">u2": "I;16B", "<i4": "I"}[dtype]
    image = Image.frombytes(mode, (WIDTH, HEIGHT), pixels.tobytes())
    assert halves(decode(encode(image, kind), "a")) == ((100, 100, 100), (255, 255, 255))


def test_sixteen_bit_levels_are_rounded() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = np.asarray(decode(encode(Image.fromarray(ramp), "PNG"), "a"))[..., 0]
    assert np.array_equal(decoded, np.rint(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_defined_white_are_refused(dtype: Any) -> None:
    data = encode(Image.fromarray(np.ones((4, 4), dtype=dtype)), "TIFF")
    with pytest.raises(BadImage, match="no defined white: save it with 8 or 16 bits"):
        decode(data, "a")


@pytest.mark.parametrize("palette_bytes", [False, True])
def test_palette_with_transparency_goes_over_white(palette_bytes: bool) -> None:
    image = flag().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    clear = image.getpixel((0, 0))
    transparency = bytes(0 if k == clear else 255 for k in range(2)) if palette_bytes else clear
    data = encode(image, "PNG", transparency=transparency)
    assert halves(decode(data, "a")) == ((255, 255, 255), BOTTOM)
    assert halves(decode(data, "a", alpha="ignore")) == (TOP, BOTTOM)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_half_transparent_pixels_are_mixed_with_white(kind: str) -> None:
    image = flag()
    image.putalpha(128)
    data = encode(image, kind, lossless=True)
    top, bottom = halves(decode(data, "a"))
    assert near(top, (227, 152, 132), 1)
    assert near(bottom, (127, 127, 127), 1)
    assert halves(decode(data, "a", alpha="ignore")) == (TOP, BOTTOM)


def test_grey_with_transparency_goes_over_white() -> None:
    image = flag().convert("L")
    image.putalpha(Image.new("L", image.size, 0))
    assert halves(decode(encode(image, "PNG"), "a")) == ((255, 255, 255), (255, 255, 255))
    keyed = encode(Image.new("L", (8, 8), 77), "PNG", transparency=77)
    assert decode(keyed, "a").getpixel((0, 0)) == (255, 255, 255)
    assert decode(keyed, "a", alpha="ignore").getpixel((0, 0)) == (77, 77, 77)
    sixteen = encode(Image.fromarray(np.full((8, 8), 5000, dtype=np.uint16)), "PNG", transparency=5000)
    assert decode(sixteen, "a").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert all(near(pixel, (255, 0, 0)) for pixel in halves(decode(data, "a")))


def marked(orientation: int) -> Image.Image:
    """Return how a camera stores an upright picture with one bright corner, top left, under that orientation."""
    upright = np.zeros((24, 32), dtype=np.uint8)
    upright[:8, :8] = 250
    undo = {1: 0, 2: 0, 3: 2, 4: 0, 5: 1, 6: 1, 7: 1, 8: 3}[orientation]
    stored = np.rot90(upright, undo)
    if orientation == 2:
        stored = upright[:, ::-1]
    elif orientation == 4:
        stored = upright[::-1]
    elif orientation == 5:
        stored = upright.T
    elif orientation == 7:
        stored = upright[::-1, ::-1].T
    return Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = marked(orientation)
    data = encode(stored, kind, exif=exif)
    image = decode(data, "a")
    assert image.size == (32, 24)
    assert near(image.getpixel((2, 2)), (250, 250, 250), 4)
    assert near(image.getpixel((29, 21)), (0, 0, 0), 4)
    if kind != "TIFF":
        assert decode(data, "a", exif="ignore").size == stored.size


def test_orientation_in_xmp_is_read_like_exif() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(encode(marked(6), "JPEG", xmp=xmp), "a").size == (32, 24)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_turns_nothing(exif: bytes) -> None:
    assert near(halves(decode(encode(flag(), "JPEG", exif=exif), "a"))[0], TOP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_truncated_files_are_refused(kind: str) -> None:
    data = encode(flag(), kind)
    with pytest.raises(BadImage, match=r"^folder/x: .*(truncated|damaged)"):
        decode(data[: len(data) * 2 // 3], "folder/x")


@pytest.mark.parametrize("missing", [1, 2, 50])
def test_a_jpeg_that_lacks_its_last_bytes_is_refused(missing: int) -> None:
    with pytest.raises(BadImage, match=r"x\.jpg: the file is truncated$"):
        decode(encode(flag(), "JPEG")[:-missing], "x.jpg")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    data = encode(flag(), "JPEG")
    assert np.array_equal(np.asarray(decode(data + b"trailer" * 99, "a")), np.asarray(decode(data, "a")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"these are words, not pixels\n" * 20, "cat.jpg: not a picture in any format that can be read"),
        (b"\xff\xd8\xff" + b"words" * 20, "cat.jpg: not a picture in any format that can be read"),
        (b"", "cat.jpg: the file is empty"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, message: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode(data, "cat.jpg")
    assert str(caught.value) == message


def bomb_png(width: int, height: int) -> bytes:
    """Return a small file whose header promises that many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def bomb_jpeg(width: int, height: int) -> bytes:
    """Return a small JPEG whose header promises that many pixels."""
    data = bytearray(encode(flag(), "JPEG"))
    place = data.find(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("bomb", [bomb_png, bomb_jpeg])
def test_bombs_are_refused_from_the_header(bomb: Any) -> None:
    for width, height in ((30_000, 30_000), (13_378, 13_377)):
        assert width * height > MAX_PIXELS
        with pytest.raises(BadImage, match="more than 178,956,970 pixels"):
            decode(bomb(width, height), "big")


def test_the_fast_decoder_never_sees_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data, _: seen.append(len(data)))
    with pytest.raises(BadImage, match="30000 x 30000 is more than 178,956,970 pixels"):
        decode(bomb_jpeg(30_000, 30_000), "big")
    assert seen == []


def test_a_picture_below_the_limit_is_read() -> None:
    with pytest.raises(BadImage, match="truncated"):
        decode(bomb_png(12_000, 12_000), "large but allowed")


def test_the_limit_does_not_depend_on_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImage, match="30000 x 30000 is more than"):
        decode(bomb_png(30_000, 30_000), "big")


def test_names_that_no_terminal_can_print_are_escaped() -> None:
    with pytest.raises(BadImage) as caught:
        decode(b"x", "caf\udce9.jpg")
    assert str(caught.value).encode("utf-8").startswith(b"caf\\xe9.jpg: ")


def test_the_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(BadImage("a.jpg", "the file is empty")))
    assert isinstance(error, BadImage)
    assert (error.name, error.reason, str(error)) == ("a.jpg", "the file is empty", "a.jpg: the file is empty")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_a_picture_or_one_line(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encode(flag(), kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    message = ""
    try:
        assert decode(bytes(data), "a").mode == "RGB"
    except BadImage as error:
        message = str(error)
    assert "\n" not in message
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_only_tags_of_the_header_turn_a_picture() -> None:
    upright = jpeg(smooth(80, 60))
    trailer = jpeg(smooth(60, 80), orientation=6)
    assert decode(upright + trailer, "a").size == (80, 60)
    assert decode(jpeg(smooth(80, 60), orientation=6), "a").size == (60, 80)
