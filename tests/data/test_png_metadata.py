"""PNGs whose texts and profiles are too long, or broken: their pixels are sound, and every door decodes them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.data.decode import LEFT_OUT, BadImage, decode, decode_with_flaw
from fixres.data.evaluation_view import evaluation_view
from fixres.data.png_metadata import without_metadata
from fixres.data.unlabelled import open_picture
from fixres.inference.server.read_picture import Task, read_picture
from fixres.resolution import Preprocess
from tests.support.pictures import smooth

IMAGE = smooth(32, 24)
BOMB = zlib.compress(b"x" * (2 << 20))


def png(**settings: object) -> bytes:
    buffer = io.BytesIO()
    IMAGE.save(buffer, "PNG", **settings)
    return buffer.getvalue()


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def with_chunk(kind: bytes, payload: bytes, *, is_last: bool = False) -> bytes:
    plain = png()
    place = len(plain) - 12 if is_last else 33
    return plain[:place] + chunk(kind, payload) + plain[place:]


TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
CASES = {
    "long text": (with_chunk(b"zTXt", b"prompt\0\0" + BOMB), "text"),
    "long text behind the pixels": (with_chunk(b"zTXt", b"prompt\0\0" + BOMB, is_last=True), "text"),
    "long XMP": (with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB), "XMP"),
    "long profile": (png(icc_profile=bytes(2 << 20)), "ICC profile"),
    "profile packed in an unknown way": (with_chunk(b"iCCP", b"name\0\7x"), "ICC profile"),
    "half a size": (with_chunk(b"pHYs", b"ab"), "pHYs"),
}


@pytest.mark.parametrize("case", CASES)
def test_metadata_that_pillow_refuses_costs_no_picture(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit is for a process of the server's own.
    monkeypatch.setattr("fixres.inference.server.read_picture._limit_memory", lambda pixels: None)
    data, left_out = CASES[case]
    image, flaw = decode_with_flaw(data, "a.png")
    assert np.array_equal(np.asarray(image), np.asarray(IMAGE))
    assert flaw == LEFT_OUT + left_out
    view = Preprocess(16)
    (served,) = read_picture(Task("a.png", data, (view,), 10**6, 10**6))
    assert np.array_equal(served, np.asarray(evaluation_view(IMAGE, view)))


@pytest.mark.parametrize("case", CASES)
def test_the_program_beside_an_exported_file_reads_the_same(case: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fixres.inference.export.run_onnx import picture

    (tmp_path / "a.png").write_bytes(CASES[case][0])
    found = picture(str(tmp_path / "a.png"), {"exif": "apply", "alpha": "white"})
    assert np.array_equal(np.asarray(found), np.asarray(IMAGE))


def test_orientation_and_transparency_are_kept() -> None:
    long = b"prompt\0\0" + BOMB
    data = with_chunk(b"zTXt", long)
    upright = data[:33] + chunk(b"eXIf", TURNED) + data[33:]
    assert decode(upright, "a.png").size == (24, 32)
    lines = b"\nexif\n" + str(len(TURNED)).encode() + b"\n" + (b"Exif\0\0" + TURNED).hex().encode() + b"\n"
    old = data[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + lines) + data[33:]
    assert decode(old, "a.png").size == (24, 32)
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 7).save(buffer, "PNG", transparency=7)
    plain = buffer.getvalue()
    assert decode(plain[:33] + chunk(b"zTXt", long) + plain[33:], "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_damage_to_the_picture_stays_damage() -> None:
    for data, said in ((CASES["long text"][0][:-300], "truncated"), (png()[:-300], "truncated")):
        with pytest.raises(BadImage, match=said):
            decode(data, "a.png")
    assert without_metadata(b"\xff\xd8\xff") == (b"\xff\xd8\xff", "")


def test_an_image_with_a_long_profile_is_taken_as_it_is() -> None:
    image = IMAGE.copy()
    image.info["icc_profile"] = bytes(2 << 20)
    assert np.array_equal(np.asarray(open_picture(image, Preprocess(16))), np.asarray(IMAGE))
