"""Work is budgeted before it is done: scans, pixels, bytes, memory, and what is no file at all."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.data import decode as decoding
from fixres.data.decode import MAX_FILE_BYTES, BadImage, _num_scans, check_scans, decode, read_file
from fixres.data.sources.folder import Files


def jpeg(size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    """Return a JPEG file."""
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_scans(size: tuple[int, int], scans: int) -> bytes:
    """Return a progressive grey JPEG whose last scan is there so many times."""
    buffer = io.BytesIO()
    Image.new("L", size, 90).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"progressive": True, "restart_marker_blocks": 1}])
def test_scans_are_counted_as_they_are(options: dict[str, object]) -> None:
    data = jpeg((200, 160), **options)
    expected = 1 if not options else data.count(b"\xff\xda")
    assert _num_scans(data) == expected
    thumbnail = data + data * 20
    assert _num_scans(thumbnail) == expected, "what lies behind the picture does not count"


def test_a_jpeg_of_very_many_scans_is_refused_at_once() -> None:
    data = with_scans((4000, 3000), 5000)
    start = time.monotonic()
    with pytest.raises(BadImage, match=r"5,00\d scans of 12,000,000 pixels"):
        decode(data, "slow.jpg")
    assert time.monotonic() - start < 2


def test_many_scans_of_few_pixels_are_no_harm() -> None:
    assert decode(with_scans((32, 24), 300), "small.jpg").size == (32, 24)


def test_a_picture_with_many_pictures_behind_it_is_read() -> None:
    data = jpeg((64, 48)) * 200
    check_scans(data, "video.jpg", 10**9)
    assert decode(data, "video.jpg").size == (64, 48)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "LA"])
def test_odd_pictures_are_what_they_were_when_converted_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 65535, (90, 70), dtype=np.uint16)
    if mode == "I;16":
        image = Image.fromarray(pixels)
    else:
        rgba = np.random.default_rng(1).integers(0, 255, (90, 70, 4), dtype=np.uint8)
        image = Image.fromarray(rgba).convert("LA" if mode == "LA" else "RGBA")
        image = image.quantize(64) if mode == "P" else image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    whole = np.asarray(decode(buffer.getvalue(), "a.png"))
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 500)
    np.testing.assert_array_equal(np.asarray(decode(buffer.getvalue(), "a.png")), whole)


def test_sixteen_bits_take_a_few_bytes_a_pixel_beside_the_picture() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4000, 4000), dtype=np.uint16)).save(buffer, "PNG")
    tracemalloc.start()
    decode(buffer.getvalue(), "grey.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # numpy's share; it was 40 bytes a pixel.
    assert peak < 3 * 16_000_000


def test_what_is_no_ordinary_file_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    with (tmp_path / "a" / "huge.png").open("wb") as file:
        file.truncate(20 << 30)
    files = Files(tmp_path)
    for name, reason in {
        "pipe": "no ordinary file",
        "zero": "no ordinary file",
        "self": "cannot be read",
        "huge": "21,474,836,480 bytes",
    }.items():
        with pytest.raises(BadImage, match=reason):
            files.read_bytes(f"a/{name}.png")
    assert MAX_FILE_BYTES < 20 << 30
    with pytest.raises(BadImage, match=r"NUL|null"):
        read_file(tmp_path / "a\0b", "a")


def test_commands_go_on_past_such_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "p" / name / f"{number}.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "p" / "a" / "g.png")
    (tmp_path / "p" / "a" / "self").symlink_to("self")
    for folder in range(12):
        (tmp_path / "p" / "b" / f"d{folder}").mkdir()
    for folder in range(12):
        for other in range(12):
            if folder != other:
                (tmp_path / "p" / "b" / f"d{folder}" / f"l{other}").symlink_to(f"../d{other}")
    start = time.monotonic()
    assert main(["data", "check", str(tmp_path / "p"), "--workers", "0"]) == 0
    assert time.monotonic() - start < 60
    assert "a/g.png (no picture by its name)" in capsys.readouterr().out


def test_no_door_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImage, match="not a picture"):
        decode(eps, "a.jpg")
    assert not (tmp_path / "started").exists()
