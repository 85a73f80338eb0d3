"""`fixres data split`: a stratified split written down as a table that `csv:` opens, groups kept together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.collections import absolute_uri, open_splits
from fixres.data.sampling import stratified_split, uniforms
from fixres.data.sources.folder import Files
from fixres.data.sources.tables import SCHEME, read_table
from fixres.data.sources.uri import Address
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.io.csv_text import FOR_PROGRAMS, CsvRows
from fixres.io.files import write_text

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class SplitTable:
    """What was written: the URI that opens it, pictures per split and class, groups per split, and notes."""

    uri: str
    counts: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    """One picture of the collection: its file, class, and what is kept together or divided evenly with it."""

    file: Path
    path: str
    label: str
    stratum: Hashable


def write_split_table(
    uri: str, out: Path, *, val: float = 0.2, test: float = 0.2, seed: int = 0, group: str = ""
) -> SplitTable:
    """Divide the pictures of a collection, all its splits together, and write path, label and split of each.

    Args:
        uri: a collection of files: folder:, csv:, elpv: or a torchvision: set that is files.
        out: a .csv or .tsv that is not there yet; paths below its folder are written relative to it.
        val: share of val; 0: none.
        test: share of test; 0: none.
        seed: decides the split together with the pictures.
        group: pictures of one group stay in one split. A column of the table; elsewhere a regular expression that is
            searched in the path, whose first parenthesis (or whole match) names the group.

    Raises:
        UserError: shares that leave no train, no files, a group that is not there, or a split that would be empty.
    """
    fractions = _fractions(val, test)
    out = out.expanduser().absolute()
    separator = _SEPARATORS.get(out.suffix.lower())
    if separator is None:
        raise UserError(f"{out} is no table that can be written\n  give a file that ends in .csv or .tsv")
    if out.exists():
        raise UserError(f"{out} is there already\n  remove it, or name another file: it may be what a result rests on")
    opened_uri, splits, notes = open_splits(Data(uri=uri))
    if len(splits) > 1:
        notes.append(f"its own splits, {', '.join(splits)}, are put together and divided anew")
    pictures = _pictures(uri, splits)
    groups = _groups(uri, pictures, group)
    parts = make_split([picture.stratum for picture in pictures], fractions, seed, groups)
    empty = [name for name, indices in parts.items() if not len(indices)]
    if empty:
        what = f"{len(pictures)} pictures" + (f" in {len(set(groups))} groups" if groups else "")
        raise UserError(f"{what} are too few for {' and '.join(empty)}\n  lower the shares, or add pictures")
    write_text(out, _table(pictures, parts, out, separator))
    found: dict[str, dict[str, int]] = {}
    for name, indices in parts.items():
        labels = Counter(pictures[index].label for index in indices.tolist())
        found[name] = {label: labels[label] for label in sorted(labels)}
        missing = {picture.label for picture in pictures} - set(labels)
        if missing:
            notes.append(f"{len(missing)} classes have no pictures in {name}: {', '.join(sorted(missing)[:10])}")
    counted = {name: len({groups[i] for i in indices.tolist()}) for name, indices in parts.items()} if groups else {}
    return SplitTable(str(Address("csv", str(out), {})), found, counted, (f"made from {opened_uri}", *notes))


def make_split(
    strata: Sequence[Hashable],
    fractions: Mapping[str, float],
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of every part, sorted; parts are disjoint and cover everything.

    Without groups every stratum is divided exactly. With groups no group is divided; the largest are placed first,
    each where it brings the strata of all parts closest to their shares.
    """
    if groups is None:
        return stratified_split(strata, fractions, seed)
    places: dict[Hashable, int] = {}
    codes = np.array([places.setdefault(stratum, len(places)) for stratum in strata], dtype=np.int64)
    members: dict[Hashable, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    chance = uniforms(len(members), seed)
    order = sorted(zip(members.values(), chance.tolist(), strict=True), key=lambda item: (-len(item[0]), item[1]))
    shares = np.array(list(fractions.values()))
    wanted = shares[:, None] * np.bincount(codes, minlength=len(places))[None, :]
    have = np.zeros_like(wanted)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    names = list(fractions)
    for indices, _ in order:
        present, amount = np.unique(codes[indices], return_counts=True)
        lack = wanted[:, present] - have[:, present]
        # How much closer the group brings every part, each stratum measured against its own share.
        gain = (amount * (2 * lack - amount) / np.maximum(wanted[:, present], 1e-9)).sum(axis=1)
        gain[shares == 0] = -np.inf
        best = int(gain.argmax())
        have[best, present] += amount
        parts[names[best]] += indices
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in parts.items()}


def _fractions(val: float, test: float) -> dict[str, float]:
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise UserError(f"shares val {val} and test {test} leave no split\n  each is from 0 to 1, together below 1")
    # Rounded, since 1 - 0.2 - 0.2 is not 0.6 and a stratum of five would notice.
    shares = {"train": round(1 - val - test, 12), "val": val, "test": test}
    return {name: share for name, share in shares.items() if share > 0}


def _pictures(uri: str, splits: Mapping[str, Split]) -> list[_Picture]:
    pictures = []
    for split in splits.values():
        if not isinstance(split.source, Files):
            raise UserError(
                f"the pictures of {uri} are no files, so no table can name them\n"
                "  a split can be made of folder:, csv:, elpv: and the torchvision: sets that are files"
            )
        kinds = split.subgroups or [""] * len(split)
        for path, label, kind in zip(split.paths, split.labels.tolist(), kinds, strict=True):
            name = split.classes[label]
            pictures.append(_Picture(split.source.root / path, path, name, (name, kind)))
    return pictures


def _groups(uri: str, pictures: Sequence[_Picture], group: str) -> list[str] | None:
    if not group:
        return None
    stored = absolute_uri(uri)
    if stored.startswith("csv:"):
        by_path = {row.path: row.group for row in read_table(SCHEME.parse(stored.removeprefix("csv:")), group)}
        return [by_path[picture.path] for picture in pictures]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(
            f"'{group}' is no regular expression ({error})\n  for example --group 'patient[0-9]+'"
        ) from None
    groups = []
    for picture in pictures:
        found = pattern.search(picture.path)
        name = found and (found[1] if pattern.groups else found[0])
        if not name:
            raise UserError(
                f"'{group}' finds no group in {picture.path}\n  it must find one in the path of every picture"
            )
        groups.append(name)
    return groups


def _table(pictures: Sequence[_Picture], parts: Mapping[str, npt.NDArray[np.int64]], out: Path, separator: str) -> str:
    owner = {index: name for name, indices in parts.items() for index in indices.tolist()}
    rows = [["path", "label", "split"]]
    for index, picture in enumerate(pictures):
        below = picture.file.is_relative_to(out.parent)
        path = str(picture.file.relative_to(out.parent) if below else picture.file)
        for text in (path, picture.label):
            if text.splitlines() != [text] or text.encode("utf-8", "replace").decode() != text:
                raise UserError(f"{text!r} does not fit into a line of UTF-8\n  rename it")
        if picture.label.strip() != picture.label:
            raise UserError(f"the class {picture.label!r} begins or ends with a blank\n  rename it")
        rows.append([path, picture.label, owner[index]])
    return CsvRows(delimiter=separator, advice=FOR_PROGRAMS).text(rows)
