"""Writing a collection as shards: pictures byte for byte as they are, or made smaller to a stated side."""

from __future__ import annotations

import io
import itertools
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from fixres.config.choices import OnBadImage
from fixres.config.recipe import Data
from fixres.data.collections import Collection
from fixres.data.decode import BadImage, decode
from fixres.data.shards.index import INDEX_NAME
from fixres.data.sources.shards import CLASSES_NAME, open_shards
from fixres.data.splits import Encoded, Split
from fixres.errors import UserError
from fixres.io.files import write_text, write_with
from fixres.io.progress import Progress

_STARTS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"P5": "pgm",
    b"P6": "ppm",
}


@dataclass(frozen=True)
class Packing:
    """How shards are written."""

    images_per_shard: int = 1000
    max_side: int | None = None
    """Longest side in pixels of a picture that keeps its bytes."""
    quality: int = 90
    """JPEG quality of pictures that are made smaller."""
    on_bad_image: OnBadImage = "error"


_PLAIN = Packing()


def pack(
    collection: Collection,
    out: Path,
    packing: Packing = _PLAIN,
    bad: list[str] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write every split of a collection as shards into a new folder, with index and class names; return the shards.

    Every picture is decoded as the collection says. It keeps its bytes, unless its longer side is above `max_side`:
    then it is made smaller and saved as JPEG of that quality. `wds:OUT` opens the same pictures in the same order.
    With `on_bad_image="skip"` those that cannot be read are left out and their paths appended to `bad`.

    Raises:
        UserError: the folder holds something, the disk is full, or a picture cannot be read.
    """
    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already\n  name a new folder with --out")
    odd = next((name for name in collection.classes if name.splitlines() != [name] or not name.strip()), None)
    if odd is not None:
        raise UserError(f"the class name {odd!r} does not fit into one line\n  rename it")
    if packing.images_per_shard < 1:
        raise UserError(f"{packing.images_per_shard} pictures per shard are too few\n  --images-per-shard 1000")
    part = _fresh_folder(out)
    total = sum(len(split) for split in collection.splits.values())
    names: list[str] = []
    written = itertools.count(1)
    left_out = [] if bad is None else bad

    def count() -> None:
        if progress:
            progress(next(written), total)

    for split in collection.splits.values():
        prefix = "pictures" if split.name == "all" else split.name
        for number, start in enumerate(range(0, len(split), packing.images_per_shard)):
            indices = range(start, min(start + packing.images_per_shard, len(split)))
            names.append(f"{prefix}-{number:06}.tar")
            write_with(part / names[-1], partial(_write, split, indices, packing, left_out, count))
    write_text(part / CLASSES_NAME, "".join(f"{name}\n" for name in collection.classes))
    # Reads every header once more: what cannot be opened is not handed over.
    open_shards(Data(), f"{str(part).replace('%', '%25').replace('?', '%3F')}")
    if out.exists():
        out.rmdir()
    part.rename(out)
    return [out / name for name in names]


def _write(
    split: Split, indices: range, packing: Packing, bad: list[str], count: Callable[[], None], path: Path
) -> None:
    """Write one shard. Labels are places in the split's class list; the same pictures give the same bytes."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in indices:
            files: tuple[tuple[bytes, str], ...] = ()
            try:
                files = (_file_of(split, index, packing), (str(int(split.labels[index])).encode(), "cls"))
            except BadImage as error:
                if packing.on_bad_image == "error":
                    raise BadImage(
                        error.name,
                        f"{error.reason}\n  repair or remove it, or leave such pictures out: --on-bad-image skip",
                    ) from None
                bad.append(error.name)
            for content, suffix in files:
                member = tarfile.TarInfo(f"{index:09}.{suffix}")
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
            count()


def _file_of(split: Split, index: int, packing: Packing) -> tuple[bytes, str]:
    """Return content and ending, without a dot, of a picture's file, which is decoded in any case; raises BadImage.

    It is the picture's own, PNG for a picture that is none, and JPEG for one that is made smaller.
    """
    if isinstance(split.source, Encoded):
        path = split.paths[index]
        content = split.source.read_bytes(path)
        ending, picture = _ending(content, path), decode(content, path, split.exif, split.alpha)
    else:
        picture, buffer = split.read(index), io.BytesIO()
        picture.save(buffer, "PNG")
        content, ending = buffer.getvalue(), "png"
    longest = max(picture.size)
    if packing.max_side is None or longest <= packing.max_side:
        return content, ending
    width, height = (max(1, round(side * packing.max_side / longest)) for side in picture.size)
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=packing.quality)
    return buffer.getvalue(), "jpg"


def _ending(content: bytes, path: str) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    known = next((ending for start, ending in _STARTS.items() if content.startswith(start)), "")
    return known or Path(path).suffix.lower().removeprefix(".") or "jpg"


def _fresh_folder(out: Path) -> Path:
    """Return an empty folder beside `out`; what an earlier try left there is removed."""
    part = out.with_name(f".{out.name}.part")
    left = [path.name for path in part.iterdir()] if part.is_dir() else []
    if any(not (name.endswith((".tar", ".part")) or name in (INDEX_NAME, CLASSES_NAME)) for name in left):
        raise UserError(f"{part} holds files that are no shards\n  remove it, or name another folder with --out")
    try:
        if part.is_dir():
            shutil.rmtree(part)
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{part} cannot be made ({error.strerror})\n  name another folder with --out") from None
    return part
