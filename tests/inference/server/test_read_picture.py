"""A decoder process refuses by the header, tells of large pictures, and may take only so much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fixres.inference.server import read_picture as module
from fixres.inference.server.read_picture import Large, Refusal, Task, read_picture
from fixres.resolution import Preprocess
from tests.support.serving import encoded, picture

_TRY = """
import sys
from fixres.inference.server import read_picture as module
from fixres.resolution import Preprocess
module.BYTES_PER_PIXEL, module._OWN_BYTES = int(sys.argv[2]), 96 << 20
found = module.read_picture(module.Task("it", open(sys.argv[1], "rb").read(), (Preprocess(32),), 10**7, 10**7))
print(found.code if isinstance(found, module.Refusal) else "read")
assert "torch" not in sys.modules
"""


@pytest.fixture(autouse=True)
def no_memory_limit_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the limit from this process, which has more to do."""
    monkeypatch.setattr(module, "_limit_memory", lambda pixels: None)


def read(data: bytes, max_pixels: int = 10_000, free_pixels: int = 5_000) -> object:
    return read_picture(Task("it", data, (Preprocess(32),), max_pixels, free_pixels))


def test_large_pictures_are_told_and_larger_ones_refused_before_decoding() -> None:
    (view,) = read(encoded(picture(1, (50, 60))))  # type: ignore[misc]
    assert view.shape == (32, 32, 3)
    assert read(encoded(picture(1, (90, 70)))) == Large(6300)
    # Half of the file is gone: the header decides.
    assert read(encoded(picture(1, (90, 70)))[:700]) == Large(6300)
    found = read(encoded(picture(1, (101, 100))))
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (413, "too_many_pixels")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel limits memory on Linux only")
@pytest.mark.parametrize(("bytes_per_pixel", "says"), [(module.BYTES_PER_PIXEL, "read"), (1, "too_many_pixels")])
def test_memory_beyond_what_a_picture_needs_is_refused(tmp_path: Path, bytes_per_pixel: int, says: str) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(encoded(picture(2, (3000, 3000)), "PNG"))
    words = [sys.executable, "-c", _TRY, str(file), str(bytes_per_pixel)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout.strip() == says, found.stderr
