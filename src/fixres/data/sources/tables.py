"""`csv:FILE[?root=DIR&image=path&label=label&split=split]` - one row per picture, in CSV, TSV, JSONL or Parquet.

Paths are relative to the file, or to `root`. Labels are names; when all of them are whole numbers they sort as numbers.
Every mistake names the line. Rows are taken one at a time into flat arrays, so ten million of them fit.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.picture_formats import EXTENSIONS
from fixres.data.sources.folder import Files
from fixres.data.sources.missing_files import Listed, require_some
from fixres.data.sources.uri import Address, Grammar, Scheme
from fixres.data.splits import SPLIT_NAMES, Names, Split
from fixres.errors import UserError, did_you_mean, require_extra

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_COLUMNS = {"image": "path", "label": "label", "split": "split"}
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


_Line = tuple[int, dict[str, str | None]]
"""Where a row stands, and its cells by role."""


class Row(NamedTuple):
    """One picture of a table; `line` is where it stands, for messages."""

    line: int
    path: str
    label: str
    split: str
    group: str


@dataclass
class _Columns:
    """Rows in flat arrays, as they come."""

    labels: array[int] = field(default_factory=lambda: array("q"))
    splits: array[int] = field(default_factory=lambda: array("b"))
    hashes: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    label_places: dict[str, int] = field(default_factory=dict)


def open_table(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the splits of the split column (or `{"all": ...}` without one) and notes.

    Raises:
        UserError: no such file or column, a row that cannot be used, a picture listed twice, no picture that is there.
    """
    address = SCHEME.parse(body)
    columns = _Columns()
    root = Path(address["root"] or Path(address.body).parent)
    paths = Names(_fill(columns, address, root))
    if not len(paths):
        raise UserError(f"{address.body} lists no pictures\n  it needs one row per picture below the column names")
    _refuse_duplicates(paths, columns, address.body, root)
    texts = list(columns.label_places)
    listed = (Listed(path, texts[label]) for path, label in zip(paths, columns.labels, strict=True))
    require_some(listed, address.body, root, f"csv:{address.body}?root=DIR")
    labels, splits = (np.frombuffer(column, dtype=column.typecode) for column in (columns.labels, columns.splits))
    names = list(dict.fromkeys(SPLIT_NAMES.values()))
    found: dict[str, Split] = {}
    for place in np.unique(splits).tolist():
        name = "all" if place < 0 else names[place]
        chosen = np.flatnonzero(splits == place).astype(np.int64, copy=False)
        classes, own = named_labels(list(columns.label_places), labels[chosen])
        kept = paths if len(chosen) == len(paths) else paths.take(chosen)
        found[name] = Split(name, classes, own, kept, Files(root), data.exif, data.alpha)
    return str(address), found, []


def named_labels(texts: Sequence[str], codes: npt.NDArray[Any]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the names that occur, sorted, and the label of every picture, int64.

    `codes` are places in `texts`. Whole numbers sort as numbers.
    """
    used = np.unique(codes).tolist()
    order = sorted_names([texts[place] for place in used])
    label = {name: number for number, name in enumerate(order)}
    table = np.zeros(len(texts), dtype=np.int64)
    for place in used:
        table[place] = label[texts[place]]
    return order, table[codes]


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names sorted as text, or as numbers when all are whole numbers."""
    unsorted = list(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in unsorted):
        return tuple(sorted(unsorted, key=lambda name: (int(name), name)))
    return tuple(sorted(unsorted))


def read_table(address: Address, group: str = "") -> Iterator[Row]:
    """Yield the rows of the table in order. `split` is empty without such a column, `group` unless one is named.

    Raises:
        UserError: the file or a row cannot be read, or a column is missing; the message names the line.
    """
    path = Path(address.body)
    kind = path.suffix.lower()
    if kind not in TABLES:
        raise UserError(f"{path} is none of the tables that can be read\n  allowed: {' '.join(TABLES)}")
    if not path.is_file():
        there = (
            sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in TABLES) if path.parent.is_dir() else []
        )
        raise UserError(
            f"there is no file {path}{did_you_mean(path.name, there)}\n"
            f"  {path.parent} holds {', '.join(there[:10]) if there else 'no tables'}"
        )
    wanted = {role: address[role] or default for role, default in _COLUMNS.items()}
    optional = () if address["split"] else ("split",)
    if group:
        wanted["group"] = group
    for line, cells in _READERS[kind](path, wanted, optional):
        yield _row(path, line, cells, wanted)


def listed_paths(table: Path) -> Iterator[str]:
    """Yield the pictures in column `path` of a CSV, TSV, JSONL or Parquet file, as they are written there.

    Raises:
        UserError: it cannot be read, or has no such column; from the iterator, a line that cannot be used.
    """
    wanted = {"image": _COLUMNS["image"]}
    for line, cells in _READERS[table.suffix.lower()](table, wanted, ()):
        yield _row(table, line, cells, wanted).path


def _row(path: Path, line: int, cells: dict[str, str | None], wanted: dict[str, str]) -> Row:
    for role, text in cells.items():
        where = f"{path} line {line}: column '{wanted[role]}'"
        if text is None or not text.strip():
            raise UserError(f"{where} is empty\n  fill it in, or remove the line")
        if "\0" in text:
            raise UserError(f"{where} holds a NUL byte\n  save the table again as plain UTF-8")
        if "\n" in text or "\r" in text:
            raise UserError(f"{where} holds a line break\n  remove it, or close the quotes above it")
    # Blanks around a label would make a second class of the same look; file names keep theirs.
    label, split, group = ((cells.get(role) or "").strip() for role in ("label", "split", "group"))
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(
            f"{path} line {line}: '{split}' is no split{did_you_mean(split, SPLIT_NAMES)}\n"
            f"  allowed in column '{wanted['split']}': {', '.join(SPLIT_NAMES)}"
        )
    return Row(line, cells["image"] or "", label, SPLIT_NAMES.get(split.lower(), ""), group)


def _fill(columns: _Columns, address: Address, root: Path) -> Iterator[str]:
    """Yield the paths; put everything else into `columns`."""
    names, prefix = list(dict.fromkeys(SPLIT_NAMES.values())), f"{root}/"
    for row in read_table(address):
        columns.labels.append(columns.label_places.setdefault(row.label, len(columns.label_places)))
        columns.splits.append(names.index(row.split) if row.split else -1)
        columns.hashes.append(hash(_plain(row.path, prefix)))
        columns.lines.append(row.line)
        yield row.path


def _plain(path: str, prefix: str) -> str:
    """Return the one spelling of a path below `prefix`. '..' stays: behind a link it leads somewhere else."""
    if path.startswith(("/", "./")) or "//" in path or "/./" in path:
        parts = "/".join(part for part in path.split("/") if part not in ("", "."))
        return f"/{parts}".removeprefix(prefix) if path.startswith("/") else parts
    return path


def _refuse_duplicates(paths: Names, columns: _Columns, table: str, root: Path) -> None:
    hashes = np.frombuffer(columns.hashes, dtype=np.int64)
    order = np.argsort(hashes, kind="stable")
    for place in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]).tolist():
        first, second = order[place], order[place + 1]
        names = list(dict.fromkeys((paths[first], paths[second])))
        if len({_plain(name, f"{root}/") for name in names}) == 1:
            raise UserError(
                f"{table} lines {columns.lines[first]} and {columns.lines[second]} list the same picture, "
                f"{' and '.join(names)}\n  keep one of them: twice in a split it counts double, in two splits it leaks"
            )


def _require_columns(
    path: Path, present: Sequence[str], wanted: dict[str, str], optional: Sequence[str]
) -> dict[str, str]:
    """Return role -> column for the columns that are there."""
    for role, name in wanted.items():
        if name in present or role in optional:
            continue
        raise UserError(
            f"{path} has no column '{name}'{did_you_mean(name, present)}\n"
            f"  its columns are {', '.join(present)}; name the right one: "
            + ("--group NAME" if role == "group" else f"?{role}=NAME")
        )
    return {role: name for role, name in wanted.items() if name in present}


def _refuse_other_layouts(path: Path, separator: str, first_line: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Refuse a table whose first line tells that it has another separator than its ending says, or no column names."""
    for mark, name in _SEPARATORS.items():
        if mark != separator and len(first_line) == 1 and mark in first_line[0]:
            ending = {"\t": ".tsv", ",": ".csv"}.get(mark)
            raise UserError(
                f"{path} has {name} between its columns, where a {path.suffix} file has {_SEPARATORS[separator]}\n  "
                + (f"rename it to end in {ending}" if ending else "save it again with commas, or as .tsv with tabs")
            )
    if any(cell.lower().endswith(tuple(EXTENSIONS)) for cell in first_line):
        names = separator.join((wanted["image"], wanted["label"], "...")[: max(2, len(first_line))])
        raise UserError(
            f"{path} has no column names: its first line is a picture already, {separator.join(first_line)}\n"
            f"  write a line of names above it: {names}"
        )


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, ends included; the byte order mark that Excel writes is dropped."""
    try:
        with path.open("rb") as file:
            if file.read(2) in _UTF_16:
                raise UserError(f"{path} is UTF-16\n  save it as UTF-8")
            file.seek(0)
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise UserError(f"{path} line {number} is not UTF-8\n  save the table as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def _separated(path: Path, wanted: dict[str, str], optional: Sequence[str]) -> Iterator[_Line]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(_lines(path), delimiter=separator, strict=True)
    places: dict[str, int] = {}
    num_columns = 0
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path} line {line}: {error}\n  check the quotes of this line") from None
        if not cells or cells == [""]:
            continue
        if not places:
            header = [cell.strip() for cell in cells]
            if not all(name in header for role, name in wanted.items() if role not in optional):
                _refuse_other_layouts(path, separator, header, wanted)
            if len(set(header)) < len(header):
                raise UserError(f"{path} line {line}: a column name occurs twice: {', '.join(header)}\n  rename one")
            columns = _require_columns(path, header, wanted, optional)
            places, num_columns = {role: header.index(name) for role, name in columns.items()}, len(header)
            continue
        if len(cells) != num_columns:
            raise UserError(
                f"{path} line {line} has {len(cells)} cells, the first line {num_columns}\n"
                "  put cells that hold the separator into double quotes"
            )
        yield line, {role: cells[place] for role, place in places.items()}


def _jsonl(path: Path, wanted: dict[str, str], optional: Sequence[str]) -> Iterator[_Line]:
    roles: dict[str, str] | None = None
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path} line {line} is not JSON ({error})") from None
        if not isinstance(values, dict):
            raise UserError(f'{path} line {line} is not an object\n  write one per line: {{"path": ..., "label": ...}}')
        if roles is None:
            roles = _require_columns(path, list(values), wanted, optional)
        yield line, {role: _text(values.get(name), path, line, name) for role, name in roles.items()}


def _parquet(path: Path, wanted: dict[str, str], optional: Sequence[str]) -> Iterator[_Line]:
    try:
        import pyarrow.lib
        from pyarrow import parquet
    except ImportError:
        raise require_extra("pyarrow", "parquet") from None
    try:
        with parquet.ParquetFile(path) as file:
            roles = _require_columns(path, file.schema_arrow.names, wanted, optional)
            row = 0
            for batch in file.iter_batches(columns=list(roles.values())):
                values = [batch.column(name).to_pylist() for name in roles.values()]
                for cells in zip(*values, strict=True):
                    row += 1
                    texts = zip(roles.items(), cells, strict=True)
                    yield row, {role: _text(cell, path, row, name) for (role, name), cell in texts}
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _text(value: object, path: Path, line: int, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{path} line {line}: column '{column}' holds {value!r}\n  allowed are texts and whole numbers")


_READERS = {".csv": _separated, ".tsv": _separated, ".jsonl": _jsonl, ".parquet": _parquet}
SCHEME = Scheme(
    "csv",
    "csv:FILE",
    "one row per picture, in CSV, TSV, JSONL or Parquet",
    open_table,
    Grammar("csv:FILE?root=DIR&image=path&label=label&split=split", ("root", "image", "label", "split"), ("root",)),
)
