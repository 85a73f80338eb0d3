"""Writing a collection as shards: pictures byte for byte as they are, or made smaller to a stated side."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fixres.config.choices import OnBadImage
from fixres.config.recipe import Data
from fixres.data.collections import Collection
from fixres.data.decode import BadImage, decode
from fixres.data.scaled_decode import Encoded
from fixres.data.shards.index import INDEX_NAME
from fixres.data.sources.shards import CLASSES_NAME, open_shards
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.io.files import write_text, write_with
from fixres.io.progress import Progress

Transform = Callable[[Split, int], tuple[bytes, str] | None]
"""From picture `index` of a split to the content and the ending, without a dot, of its file; None leaves it out."""

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
    written = 0

    def count() -> None:
        nonlocal written
        written += 1
        if progress:
            progress(written, total)

    make = as_it_is if packing.max_side is None else _smaller(packing.max_side, packing.quality)
    transform = _left_out(make, packing.on_bad_image, bad)
    names: list[str] = []
    for split in collection.splits.values():
        names += [
            shard.name
            for shard in write_shards(
                split, part, shard_images=packing.images_per_shard, transform=transform, count=count
            )
        ]
    write_text(part / CLASSES_NAME, "".join(f"{name}\n" for name in collection.classes))
    # Reads every header once more: what cannot be opened is not handed over.
    open_shards(Data(), f"{str(part).replace('%', '%25').replace('?', '%3F')}")
    if out.exists():
        out.rmdir()
    part.rename(out)
    return [out / name for name in names]


def write_shards(
    split: Split,
    out_dir: Path,
    *,
    shard_images: int = 1000,
    transform: Transform | None = None,
    count: Callable[[], None] | None = None,
) -> list[Path]:
    """Write one split as `NAME-000000.tar`, ... into a folder, each put in place whole; return the shards.

    Labels are places in the split's class list. The same split gives the same bytes.

    Raises:
        UserError: the disk is full, or a picture cannot be read.
    """
    make = transform or as_it_is
    prefix = "pictures" if split.name == "all" else split.name
    shards = []
    for number, start in enumerate(range(0, len(split), shard_images)):
        shard = out_dir / f"{prefix}-{number:06}.tar"
        indices = range(start, min(start + shard_images, len(split)))
        write_with(shard, lambda temporary, chosen=indices: _write(split, chosen, temporary, make, count))  # type: ignore[misc]
        shards.append(shard)
    return shards


def as_it_is(split: Split, index: int) -> tuple[bytes, str]:
    """Return the picture's own file, which is decoded first; PNG for a picture that is none. Raises BadImage."""
    return _file_and_picture(split, index)[:2]


def _file_and_picture(split: Split, index: int) -> tuple[bytes, str, Image.Image]:
    if not isinstance(split.source, Encoded):
        buffer = io.BytesIO()
        picture = split.read(index)
        picture.save(buffer, "PNG")
        return buffer.getvalue(), "png", picture
    path = split.paths[index]
    content = split.source.read_bytes(path)
    return content, _ending(content, path), decode(content, path, split.exif, split.alpha)


def _left_out(transform: Transform, on_bad_image: OnBadImage, bad: list[str] | None) -> Transform:
    """Return `transform` with what becomes of pictures that cannot be read."""

    def checked(split: Split, index: int) -> tuple[bytes, str] | None:
        try:
            return transform(split, index)
        except BadImage as error:
            if on_bad_image == "error":
                raise BadImage(
                    error.name,
                    f"{error.reason}\n  repair or remove it, or leave such pictures out: --on-bad-image skip",
                ) from None
            if bad is not None:
                bad.append(error.name)
            return None

    return checked


def _smaller(max_side: int, quality: int) -> Transform:
    def transform(split: Split, index: int) -> tuple[bytes, str]:
        content, ending, picture = _file_and_picture(split, index)
        longest = max(picture.size)
        if longest <= max_side:
            return content, ending
        width, height = (max(1, round(side * max_side / longest)) for side in picture.size)
        buffer = io.BytesIO()
        picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue(), "jpg"

    return transform


def _ending(content: bytes, path: str) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    known = next((ending for start, ending in _STARTS.items() if content.startswith(start)), "")
    return known or Path(path).suffix.lower().removeprefix(".") or "jpg"


def _write(split: Split, indices: range, path: Path, transform: Transform, count: Callable[[], None] | None) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in indices:
            made = transform(split, index)
            label = str(int(split.labels[index])).encode()
            for data, suffix in (made, (label, "cls")) if made else ():
                member = tarfile.TarInfo(f"{index:09}.{suffix}")
                member.size, member.mode = len(data), 0o644
                archive.addfile(member, io.BytesIO(data))
            if count:
                count()


def _fresh_folder(out: Path) -> Path:
    """Return an empty folder beside `out`; what an earlier try left there is removed."""
    part = out.with_name(f".{out.name}.part")
    left: Mapping[str, Path] = {p.name: p for p in part.iterdir()} if part.is_dir() else {}
    if any(not (n.endswith((".tar", ".part")) or n in (INDEX_NAME, CLASSES_NAME)) for n in left):
        raise UserError(f"{part} holds files that are no shards\n  remove it, or name another folder with --out")
    try:
        if left or part.is_dir():
            shutil.rmtree(part)
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{part} cannot be made ({error.strerror})\n  name another folder with --out") from None
    return part
