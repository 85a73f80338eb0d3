"""Pictures without labels: found in folders and lists one after the other, and read in batches, in their order."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from fixres.data.decode import BadImage, decode_with_flaw, read_file
from fixres.data.loader import stack_views
from fixres.data.picture_formats import EXTENSIONS
from fixres.data.picture_walk import PassedOver, pictures_below
from fixres.data.read_in_processes import begin_picture, read_items
from fixres.data.sources.missing_files import Listed, require_some
from fixres.data.sources.table_folders import address_of_pictures
from fixres.data.sources.table_rows import TABLES
from fixres.data.sources.tables import SCHEME, listed_rows, root_of
from fixres.data.sources.uri import Address
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess

Picture = str | Path | bytes | Image.Image | np.ndarray
LISTS = (*TABLES, ".txt")
"""Files that name pictures: tables with a column of them, and texts with one path per line."""

Row = tuple[str, Mapping[str, str]]
"""The path of a picture, and what is carried along of its table."""


class Pictures:
    """The pictures that files, folders and lists name, found while they are used: a million of them take no memory."""

    def __init__(self, arguments: Sequence[str], lines: Iterable[str] = (), keep: Sequence[str] = ()) -> None:
        """Check that what is named is there.

        Args:
            arguments: files; folders, walked in sorted order; tables, also as `csv:FILE?root=DIR&image=COLUMN`, and
                lists (`LISTS`), whose relative paths count from their own folder; `-` for `lines`.
            lines: paths, one per line; relative ones count from the current folder.
            keep: columns of the tables that are carried along; then there is nothing but tables.

        Raises:
            UserError: a path that does not exist, a folder without pictures, a list none of whose pictures is there.
        """
        self._lines, self._keep = lines, tuple(keep)
        self.passed_over = PassedOver()
        """What lies in the folders and is not taken, as far as they were walked the last time."""
        self.notes: list[str] = []
        """Which columns and folders of tables were taken that were not named."""
        self._arguments = [self._checked(argument) for argument in arguments]
        for argument in self._arguments if self._keep else ():
            if not isinstance(argument, Address):
                raise UserError(f"--keep carries columns of a table, which {argument} is not\n  leave --keep out")

    def _checked(self, argument: str) -> str | Address:
        """Return an argument, a table as its address, when it is found to name pictures."""
        path = Path(argument)
        if argument == "-":
            return argument
        if path.is_dir():
            passed_over = PassedOver()
            if next(_inside(path, passed_over), None) is None:
                others = "".join(f"\n  {line}" for line in passed_over.in_words())
                raise UserError(f"no pictures in {path}\n  looked for {', '.join(sorted(EXTENSIONS))}{others}")
            return argument
        if argument.startswith("csv:") and not path.exists():
            return self._listed(SCHEME.parse(argument.removeprefix("csv:")))
        if not path.exists():
            raise UserError(f"no such file or folder: {argument}")
        if path.suffix.lower() in TABLES:
            return self._listed(address_of_pictures(path))
        if path.suffix.lower() in LISTS:
            names = (Listed(name) for name in _names_in(path))
            require_some(names, argument, path.parent, "in the folder DIR, fixres predict CKPT - < LIST")
        return argument

    def _listed(self, address: Address) -> Address:
        """Return the address of a table after a look at its pictures, and note what was not said."""
        names = (Listed(name) for name, _ in listed_rows(address, self._keep))
        require_some(names, address.body, root_of(address), f"csv:{address.body}?root=DIR")
        if address["image"] and address["root"]:
            self.notes.append(f"{address.body}: pictures in {address['image']!r}, files in {address['root']}")
        return address

    def __iter__(self) -> Iterator[str]:
        """Yield the paths."""
        for path, _ in self.rows():
            yield path

    def rows(self) -> Iterator[Row]:
        """Yield the paths with what is carried along of their tables."""
        self.passed_over = PassedOver()
        for argument in self._arguments:
            if isinstance(argument, Address):
                root = root_of(argument)
                yield from ((str(root / name), kept) for name, kept in listed_rows(argument, self._keep))
            else:
                yield from ((name, {}) for name in self._named(argument))

    def _named(self, argument: str) -> Iterator[str]:
        path = Path(argument)
        if argument == "-":
            yield from _plain(self._lines)
        elif path.is_dir():
            yield from _inside(path, self.passed_over)
        elif path.suffix.lower() in LISTS:
            yield from (str(path.parent / name) for name in _names_in(path))
        else:
            yield argument

    def count(self) -> int | None:
        """Return how many there are, None where they come in as lines."""
        return None if "-" in self._arguments else sum(1 for _ in self.rows())


def _inside(folder: Path, passed_over: PassedOver) -> Iterator[str]:
    """Yield the pictures below a folder, one folder at a time, and count what else lies there."""
    for name, reason in pictures_below(folder):
        if reason:
            passed_over.add(str(folder / name), reason)
        else:
            yield str(folder / name)


def _names_in(path: Path) -> Iterator[str]:
    """Yield the lines of a list."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        yield from _plain(lines)


def _plain(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if name := line.rstrip("\r\n"):
            yield name


def open_picture(picture: Picture, p: Preprocess) -> Image.Image:
    """Return an RGB picture.

    Raises:
        BadImage: it cannot be read.
        UserError: an array that is no picture.
    """
    return open_with_flaw(picture, p)[0]


def open_with_flaw(picture: Picture, p: Preprocess) -> tuple[Image.Image, str]:
    """Return an RGB picture, and what is wrong with it that did not keep it from being decoded.

    Raises:
        BadImage: it cannot be read.
        UserError: an array that is no picture.
    """
    if isinstance(picture, bytes):
        return decode_with_flaw(picture, "bytes", p.exif, p.alpha)
    if isinstance(picture, Image.Image):
        # Through the decoder, so that transparency and 16 bits mean what they mean in a file.
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if picture.mode not in ("CMYK", "YCbCr", "LAB", "HSV") else "TIFF")
        return decode_with_flaw(buffer.getvalue(), name_of(picture), p.exif, p.alpha)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise UserError(
                f"an array {picture.dtype} {list(picture.shape)} is no picture; give uint8 [H, W] or [H, W, 3]"
            )
        return Image.fromarray(picture).convert("RGB"), ""
    try:
        data = read_file(picture, str(picture))
    except OSError as error:
        raise BadImage(str(picture), (error.strerror or str(error)).lower()) from error
    return decode_with_flaw(data, str(picture), p.exif, p.alpha)


def name_of(picture: Picture) -> str:
    """Return the path of a picture, or what kind of thing it is."""
    if isinstance(picture, str | Path):
        return str(picture)
    return getattr(picture, "filename", "") or type(picture).__name__


@dataclass(frozen=True)
class Batch:
    """Some pictures in their order, and those of them that could be read."""

    names: tuple[str, ...]
    images: Tensor
    """uint8 `[B, 3, S, S]`, of the pictures at `places`."""
    places: tuple[int, ...]
    errors: dict[int, str]
    """Why the others could not be read, by place."""
    flaws: dict[int, str]
    """What is wrong with some of those that could, by place."""


def picture_batches(
    pictures: Iterable[Picture], preprocess: Preprocess, batch_size: int, workers: int = 0
) -> Iterator[Batch]:
    """Yield the test-time crops of pictures, `batch_size` at a time; what cannot be read is told, never raised.

    With workers, pictures are taken from the iterable a few batches ahead.
    """
    return read_items(_Reader(preprocess), _chunks(pictures, batch_size), workers)


def _chunks(pictures: Iterable[Picture], batch_size: int) -> Iterator[tuple[int, tuple[Picture, ...]]]:
    iterator, first = iter(pictures), 0
    while chunk := tuple(islice(iterator, batch_size)):
        yield first, chunk
        first += len(chunk)


class _Reader:
    """Item `(number of the first, pictures)` is the batch of these pictures."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def __getitem__(self, key: tuple[int, Sequence[Picture]]) -> Batch:
        first, chunk = key

        flaws: dict[int, str] = {}

        def views(place: int) -> tuple[Tensor]:
            begin_picture(first + place, name_of(chunk[place]))
            image, flaw = open_with_flaw(chunk[place], self.preprocess)
            if flaw:
                flaws[place] = flaw
            return (evaluation_crop(image, self.preprocess),)

        (images,), places, refused = stack_views(len(chunk), (self.preprocess.size,), views, UserError)
        errors = {place: getattr(error, "reason", str(error)).split("\n")[0] for place, error in refused.items()}
        return Batch(tuple(map(name_of, chunk)), images, tuple(places), errors, flaws)
