"""`wds:PATTERN` to splits: the shards, their index, and what their labels are called."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.shards.index import INDEX_NAME, Shard, up_to_date_index
from fixres.data.shards.patterns import find_shards
from fixres.data.shards.reader import Shards
from fixres.data.shards.remote import READ_AHEAD, RemoteFile, is_gone, size_and_version, small_file
from fixres.data.sources.tables import named_labels
from fixres.data.sources.uri import Grammar, Scheme, is_remote, is_web
from fixres.data.splits import Names, Split
from fixres.errors import UserError, counted, did_you_mean
from fixres.io.download.cache import fetch

CLASSES_NAME = "classes.txt"
_CONNECTIONS = 16
_NAMED = 3


def open_shards(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the splits (or `{"all": ...}`) and notes.

    Raises:
        UserError: no such shards, a shard that is packed, cut or damaged, or a label outside the class list.
    """
    address = SCHEME.parse(body)
    found, root = _rooted(find_shards(address))
    named = {name for name, _ in found}
    shards = _remote_shards(root, found) if is_remote(root) else [_shard(root, name) for name, _ in found]

    def is_missing(name: str) -> bool:
        # The web has no lists of files: there every shard is named, and one that is missing is refused.
        if name in named or is_web(root):
            return False
        return is_gone(root + name) if is_remote(root) else not (Path(root) / name).exists()

    fresh = up_to_date_index(shards, lambda shard: _open(root, shard), _places(root), is_missing)
    index = fresh.index
    if not len(index.paths):
        raise UserError(
            f"{address}: the shards are empty\n  every sample is a picture and a file .cls of the same name"
        )
    source = Shards(root, index)
    notes = [_what_changed(fresh.changed)] if fresh.changed else []
    if fresh.saved:
        num = f"{counted(len(index.paths), 'picture')} in {counted(len(shards), 'shard')}"
        notes.append(f"indexed {num}, kept in {fresh.saved}")
    if root.startswith("http://"):
        notes.append("read by plain http: whoever sits in between can change the pictures")
    owner = np.repeat(np.array([_ORDER.index(split) for _, split in found], dtype=np.int8), index.counts)
    # Of the index, only what the splits are made from stays in memory.
    texts, codes, paths = index.texts, index.labels, index.paths
    del index, fresh
    classes = _class_names(address["classes"], root)
    splits: dict[str, Split] = {}
    for place in np.flatnonzero(np.bincount(owner, minlength=len(_ORDER))).tolist():
        chosen = np.flatnonzero(owner == place).astype(np.int64, copy=False)
        own_paths = paths if len(chosen) == len(owner) else paths.take(chosen)
        names, labels = _named(texts, codes[chosen], classes, own_paths)
        split = _ORDER[place] or "all"
        splits[split] = Split(split, names, labels, own_paths, source, data.exif, data.alpha)
    return str(address), splits, notes


def _what_changed(changed: Sequence[tuple[str, int, int]]) -> str:
    """Return the line about shards that are others than those of the index."""
    names = ", ".join(name for name, _, _ in changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
    before, now = sum(num for _, num, _ in changed), sum(num for _, _, num in changed)
    counted = f"as before, {now:,}" if before == now else f"{now:,} where {before:,} were"
    return f"the index did not match {names} (another size, time or ETag), which is indexed again; pictures: {counted}"


_ORDER = ("train", "holdout", "val", "test", "")


def _rooted(found: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """Return the shards by their names below the folder that they share, and that folder with a slash behind it."""
    paths = [path for path, _ in found]
    are_remote = {is_remote(path) for path in paths}
    if len(are_remote) > 1:
        raise UserError("some shards are on this disk and some elsewhere\n  name one or the other")
    if are_remote == {True}:
        fetched = _fetched_where_needed(paths)
        if fetched != paths:
            return _rooted([(path, split) for path, (_, split) in zip(fetched, found, strict=True)])
        levels = zip(*(path.split("/")[:-1] for path in paths), strict=False)
        shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
        root = "/".join(shared) + "/"
        if len(shared) < len(("https:", "", "host")):
            raise UserError("the shards lie on several servers\n  name those of one")
    else:
        root = os.path.commonpath([str(Path(path).parent) for path in paths]).rstrip("/") + "/"
    return [(path.removeprefix(root), split) for path, split in found], root


def _fetched_where_needed(urls: Sequence[str]) -> list[str]:
    """Return the addresses, or the paths of the files on disk when their server gives no pieces."""
    if size_and_version(urls[0]) is not None:
        return list(urls)
    folder = cache_folder() / hashlib.sha256(urls[0].rpartition("/")[0].encode()).hexdigest()[:16]
    return [str(fetch(url, folder=folder)) for url in urls]


def cache_folder() -> Path:
    """Return where indexes of folders that cannot be written, and shards that cannot be read in pieces, are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fixres" / "shards"


def _places(root: str) -> list[Path]:
    cached = cache_folder() / f"{hashlib.sha256(root.encode()).hexdigest()[:16]}-{INDEX_NAME}"
    return [cached] if is_remote(root) else [Path(root) / INDEX_NAME, cached]


def _shard(root: str, name: str) -> Shard:
    try:
        status = (Path(root) / name).stat()
    except OSError as error:
        raise UserError(f"the shard {root}{name} cannot be read ({error.strerror})") from None
    return Shard(name, status.st_size, str(status.st_mtime_ns))


def _remote_shards(root: str, found: Sequence[tuple[str, str]]) -> list[Shard]:
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        answers = list(pool.map(lambda item: size_and_version(root + item[0]), found))
    missing = next((name for (name, _), answer in zip(found, answers, strict=True) if answer is None), None)
    if missing is not None:
        raise UserError(
            f"the server gives no pieces of {root}{missing}, but of other shards\n  fetch them to this disk"
        )
    return [Shard(name, *answer) for (name, _), answer in zip(found, answers, strict=True) if answer]


def _open(root: str, shard: Shard) -> IO[bytes]:
    if is_remote(root):
        return io.BufferedReader(RemoteFile(root + shard.name, shard.size, shard.version), READ_AHEAD)
    try:
        return (Path(root) / shard.name).open("rb")
    except OSError as error:
        raise UserError(f"the shard {root}{shard.name} cannot be read ({error.strerror})") from None


def _class_names(given: str, root: str) -> tuple[str, ...]:
    """Return the names in classes.txt, one per line, empty when there is none."""
    where = given or root + CLASSES_NAME
    content: bytes | None = None
    if is_remote(where):
        content = small_file(where)
    elif Path(where).is_file():
        content = Path(where).read_bytes()
    if content is None:
        if given:
            raise UserError(f"there is no list of classes {given}\n  it holds one class name per line")
        return ()
    try:
        names = tuple(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8\n  it holds one class name per line") from None
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise UserError(f"{where} has an empty line or a name twice\n  it holds one class name per line")
    return names


def _named(
    texts: Sequence[str], codes: npt.NDArray[np.int32], classes: tuple[str, ...], paths: Names
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return class names and labels int64. With a list of classes, labels are places in it or names of it."""
    if not classes:
        return named_labels(texts, codes)
    are_places = all(text.isdecimal() for text in texts)
    places = {name: place for place, name in enumerate(classes)}
    table = np.full(len(texts), -1, dtype=np.int64)
    for code in np.unique(codes).tolist():
        text = texts[code]
        place = int(text) if are_places and int(text) < len(classes) else places.get(text, -1)
        if place < 0:
            example = paths[int(np.flatnonzero(codes == code)[0])]
            allowed = f"0 to {len(classes) - 1}" if are_places else f"{', '.join(classes[:10])}"
            raise UserError(
                f"the label '{text}' of {example} is outside the class list{did_you_mean(text, classes)}\n"
                f"  {CLASSES_NAME} allows {allowed}; correct it, or write the shards again"
            )
        table[code] = place
    return classes, table[codes]


SCHEME = Scheme(
    "wds",
    "wds:PATTERN",
    "tar shards as webdataset writes them, on this disk, on the web or in an object store",
    open_shards,
    Grammar(
        "wds:DIR/train-{0000..0012}.tar or wds:DIR?train=a-*.tar&val=b-*.tar",
        ("train", "val", "test", "classes"),
        ("classes",),
        instead=("train", "val", "test"),
    ),
)
