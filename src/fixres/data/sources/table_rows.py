"""Tables as they lie on the disk: rows of CSV, TSV, JSONL and Parquet with their lines, and the names of their columns.

A caller says which columns it wants and by which role; every mistake names the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from fixres.data.picture_formats import EXTENSIONS
from fixres.errors import UserError, did_you_mean, require_extra

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
OF_CLASS = "class:"
"""How the role of a column begins that stands for one class: it may hold any number, and truth values."""
KEPT = "kept:"
"""How the role of a column begins that is only carried along: it may hold anything, or nothing."""
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

Line = tuple[int, dict[str, str | None]]
"""Where a row stands, and its cells by role."""


def read_cells(path: Path, wanted: Mapping[str, str], optional: Sequence[str] = ()) -> Iterator[Line]:
    """Yield the cells of every row, by role.

    Args:
        path: the table.
        wanted: role -> column.
        optional: roles whose column need not be there.

    Raises:
        UserError: no such file, or one that cannot be read; a column is missing; a row does not fit the first line.
    """
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
    yield from _READERS[kind](path, wanted, optional)


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of the columns, none where the table cannot be read: `read_cells` says why."""
    try:
        return tuple(_NAMES_OF[path.suffix.lower()](path))
    except (KeyError, OSError, UserError, csv.Error, ValueError):
        return ()


def first_rows(path: Path, columns: Sequence[str], num: int) -> list[dict[str, str]]:
    """Return the cells of some columns in the first rows, by column; none where a table cannot be read so far."""
    try:
        rows = islice(read_cells(path, {KEPT + column: column for column in columns}), num)
        return [{role.removeprefix(KEPT): cell or "" for role, cell in cells.items()} for _, cells in rows]
    except (UserError, OSError):
        return []


def _require_columns(
    path: Path, present: Sequence[str], wanted: Mapping[str, str], optional: Sequence[str]
) -> dict[str, str]:
    """Return role -> column for the columns that are there."""
    for role, name in wanted.items():
        if name in present or role in optional:
            continue
        raise UserError(
            f"{path} has no column '{name}'{did_you_mean(name, present)}\n"
            f"  its columns are {', '.join(present)}; name the right one: " + _how_to_name(role)
        )
    return {role: name for role, name in wanted.items() if name in present}


def _how_to_name(role: str) -> str:
    if role.startswith(OF_CLASS):
        return "?label=NAME,NAME"
    return f"--{role} NAME" if role == "group" else "--keep NAME" if role.startswith(KEPT) else f"?{role}=NAME"


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
        said = (wanted.get("image", "path"), wanted.get("label", "label"), "...")
        names = separator.join(said[: max(2, len(first_line))])
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


def _separated(path: Path, wanted: Mapping[str, str], optional: Sequence[str]) -> Iterator[Line]:
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


def _jsonl(path: Path, wanted: Mapping[str, str], optional: Sequence[str]) -> Iterator[Line]:
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
        yield line, {role: _text(values.get(name), path, line, role, name) for role, name in roles.items()}


def _parquet(path: Path, wanted: Mapping[str, str], optional: Sequence[str]) -> Iterator[Line]:
    try:
        import pyarrow.lib
        from pyarrow import parquet
    except ImportError:
        raise require_extra("pyarrow", "parquet") from None
    try:
        with parquet.ParquetFile(path) as file:
            roles = _require_columns(path, file.schema_arrow.names, wanted, optional)
            row = 0
            for batch in file.iter_batches(columns=list(dict.fromkeys(roles.values()))):
                values = [batch.column(name).to_pylist() for name in roles.values()]
                for cells in zip(*values, strict=True):
                    row += 1
                    texts = zip(roles.items(), cells, strict=True)
                    yield row, {role: _text(cell, path, row, role, name) for (role, name), cell in texts}
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _text(value: object, path: Path, line: int, role: str, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if role.startswith((OF_CLASS, KEPT)) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise UserError(f"{path} line {line}: column '{column}' holds {value!r}\n  allowed are texts and whole numbers")


def _names_in_text(path: Path) -> list[str]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    first = next((cells for cells in csv.reader(_lines(path), delimiter=separator) if cells not in ([], [""])), [])
    return [cell.strip() for cell in first]


def _names_in_jsonl(path: Path) -> list[str]:
    first = json.loads(next((text for text in _lines(path) if text.strip()), "null"))
    return list(first) if isinstance(first, dict) else []


def _names_in_parquet(path: Path) -> list[str]:
    try:
        from pyarrow import parquet
    except ImportError:
        return []
    with parquet.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


_READERS = {".csv": _separated, ".tsv": _separated, ".jsonl": _jsonl, ".parquet": _parquet}
_NAMES_OF = {
    ".csv": _names_in_text,
    ".tsv": _names_in_text,
    ".jsonl": _names_in_jsonl,
    ".parquet": _names_in_parquet,
}
