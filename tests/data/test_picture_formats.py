"""Which files are read as pictures; a plugin for the pictures of phones, where one is installed, opens them."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from fixres.data.picture_formats import EXTENSIONS, FORMATS, how_to_convert, unread_format

PLUGIN = """
from io import BytesIO
from PIL import Image, ImageFile

class Heif(ImageFile.ImageFile):
    format = "HEIF"

    def _open(self):
        with Image.open(BytesIO(self.fp.read()[12:])) as inside:
            inside.load()
        self._size, self._mode, self.im = inside.size, inside.mode, inside.im

    def load(self):
        return self.im.pixel_access(False)

def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")
"""
CODE = """
import io, sys
from PIL import Image
from fixres.data.decode import decode
from fixres.data.picture_formats import EXTENSIONS, unread_format
from fixres.data.unlabelled import Pictures
assert ".heic" in EXTENSIONS and not unread_format("a.heic")
(path,) = Pictures([sys.argv[1]])
assert decode(open(path, "rb").read(), path).getpixel((0, 0)) == (9, 8, 7)
from fixres.inference.server.read_picture import Task, read_picture
from fixres.resolution import Preprocess
(view,) = read_picture(Task(path, open(path, "rb").read(), (Preprocess(8),), 10**6, 10**6))
assert view.shape == (8, 8, 3)
"""


def test_a_plugin_for_pictures_of_phones_is_used_by_every_door(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pillow_heif.py").write_text(PLUGIN)
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (9, 8, 7)).save(buffer, "PPM")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x0cftypheic" + buffer.getvalue())
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "photos")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_formats_that_are_not_read_say_what_they_are() -> None:
    assert {"JPEG", "PNG", "WEBP", "TIFF"} <= set(FORMATS)
    assert "EPS" not in FORMATS
    assert (unread_format("a/IMG.CR3"), unread_format("a.jpg"), unread_format("a.txt")) == (
        "a camera's raw format",
        "",
        "",
    )
    assert how_to_convert("a.CR3").endswith("magick mogrify -format jpg *.cr3")
    assert not {".eps", ".pdf", ".svg", ".mp4"} & EXTENSIONS
