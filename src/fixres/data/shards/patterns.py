"""Which shards a pattern means, and which split each belongs to."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from fixres.data.shards.remote import is_folder, matching
from fixres.data.sources.uri import Address, absolute, is_remote, is_web
from fixres.data.splits import SPLIT_NAMES
from fixres.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MAX_SHARDS = 1_000_000
_PACKED = {
    ".gz": "gunzip -c",
    ".tgz": "gunzip -c",
    ".bz2": "bunzip2 -c",
    ".xz": "unxz -c",
    ".zst": "unzstd -c",
}


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what `{0000..0012}` and `{a,b}` stand for, in order; a brace that holds neither stands for itself.

    Raises:
        UserError: a range that runs backwards or is absurdly long.
    """
    for found in _BRACES.finditer(pattern):
        span = _RANGE.fullmatch(found[1])
        if span:
            first, last = int(span[1]), int(span[2])
            if first > last or last - first >= _MAX_SHARDS:
                raise UserError(f"'{found[0]}' in {pattern} is no range\n  write it like {{0000..0012}}")
            width = len(span[1]) if span[1].startswith("0") else 0
            choices: list[str] = [f"{number:0{width}}" for number in range(first, last + 1)]
        elif "," in found[1]:
            choices = found[1].split(",")
        else:
            continue
        for choice in choices:
            for rest in expand_braces(pattern[found.end() :]):
                yield pattern[: found.start()] + choice + rest
        return
    yield pattern


def find_shards(address: Address) -> list[tuple[str, str]]:
    """Return (path or web address, split or "") of every shard.

    Raises:
        UserError: nothing there, a shard that is missing or packed, or splits that cannot be told apart.
    """
    given = [name for name in ("train", "val", "test") if address[name]]
    if not given:
        found = [(shard, split_of(shard)) for shard in _matching(address.body)]
        unknown = [shard for shard, split in found if not split]
        if unknown and len(unknown) < len(found):
            raise UserError(
                f"{unknown[0]} does not say which split it is of, other shards do\n"
                "  name the splits: wds:DIR?train=PATTERN&val=PATTERN"
            )
        return found
    base = address.body.rstrip("/") + "/" if address.body else ""
    found = [(shard, name) for name in given for shard in _matching(base + address[name])]
    seen: dict[str, str] = {}
    for shard, name in found:
        if seen.setdefault(shard, name) != name:
            raise UserError(f"{shard} is named for both {seen[shard]} and {name}\n  give every shard to one split")
    return found


def split_of(shard: str) -> str:
    """Return the split a shard's name says, like train-0001.tar, else its folder's; empty when neither does.

    Raises:
        UserError: the name says two.
    """
    *_, folder, name = ["", *shard.split("/")]
    words = re.split(r"[-_.]|(?<=[a-z])(?=[0-9])", name.lower())
    said = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    if len(said) > 1:
        raise UserError(
            f"{shard} is named after {' and '.join(sorted(said))}\n  say which: wds:DIR?train=PATTERN&val=PATTERN"
        )
    return next(iter(said), "") or SPLIT_NAMES.get(folder.lower(), "")


def _matching(pattern: str) -> list[str]:
    found: list[str] = []
    expanded = list(expand_braces(pattern))
    for path in expanded:
        if is_web(path):
            if "*" in path:
                raise UserError(f"{path}: the web has no lists of files\n  write numbers in braces: {{0000..0012}}.tar")
            found.append(path)
        elif _is_folder(path):
            # Packed ones too, to be refused: a shard that is passed over would be missed by nobody.
            endings = ("tar", *(f"tar{suffix}" for suffix in _PACKED), "tgz")
            inside = [f"{glob.escape(path)}/{deep}*.{ending}" for deep in ("", "*/") for ending in endings]
            found += sorted(name for pattern in inside for name in _listed(pattern))
        elif glob.has_magic(path) and not Path(path).exists():
            found += sorted(_listed(path))
        elif not is_remote(path) and not Path(path).is_file():
            there = sum(Path(p).is_file() for p in expanded)
            raise UserError(
                f"there is no shard {path}\n  {there} of the {len(expanded)} that the pattern names are there"
            )
        else:
            found.append(path)
    found = [absolute(path) for path in dict.fromkeys(found)]
    for path in found or [pattern]:
        _refuse_packed(path)
    if not found:
        raise UserError(
            f"no shards match {pattern}\n  for example wds:DIR, wds:DIR/train-{{0000..0012}}.tar or wds:DIR/*.tar"
        )
    return found


def _is_folder(path: str) -> bool:
    if not is_remote(path):
        return Path(path).is_dir()
    # Not asked for what is named as a shard: a pattern may name thousands.
    is_named = glob.has_magic(path) or Path(path).suffix.lower() in (".tar", *_PACKED)
    return not is_named and is_folder(path)


def _listed(pattern: str) -> list[str]:
    return matching(pattern) if is_remote(pattern) else glob.glob(pattern, recursive=True)


def _refuse_packed(path: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix in _PACKED:
        plain = path.removesuffix(Path(path).suffix).removesuffix(".tar") + ".tar"
        raise UserError(
            f"{path} is packed; pictures are read from the middle of plain tar files\n"
            f"  {_PACKED[suffix]} {path} > {plain}"
        )
