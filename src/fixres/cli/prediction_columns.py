"""Which columns predictions are written in: those that were asked for, and what is carried along of a table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fixres.errors import UserError, counted, did_you_mean
from fixres.io.parquet import Kind

if TYPE_CHECKING:
    from fixres.inference.predict import Prediction

Cells = Mapping[str, str]
"""What is carried along of one row of a table."""
Value = Callable[["Prediction", Cells], Any]

_OF_PICTURE: dict[str, tuple[Kind, Value]] = {
    "path": ("str", lambda p, _: p.path),
    "size": ("int", lambda p, _: p.size),
    "label": ("str", lambda p, _: p.top[0][0] if p.top else None),
    "set": ("strs", lambda p, _: None if p.inside is None else list(p.inside)),
    "unsure": ("bool", lambda p, _: p.unsure),
    "error": ("str", lambda p, _: p.error or None),
}
"""Columns of a prediction beside its classes; `label` is the best class."""
_ALL = "probabilities"
_ONE = "probability:"
_KEPT = "kept:"
_OWN = ("path", "size", "top", "set", "unsure", "error", "names", "probabilities")
"""What a row has anyway, in one format or the other."""


@dataclass(frozen=True)
class Column:
    """A column of the output."""

    name: str
    kind: Kind
    value: Value
    source: str
    """What it is made of: `path`, `error`, `kept:id`, ..."""

    @property
    def is_known(self) -> bool:
        """Whether it says which picture it is, before anything is computed."""
        return self.source == "path" or self.source.startswith(_KEPT)


@dataclass(frozen=True)
class Layout:
    """What `--keep` and `--columns` ask for; both empty: the columns of the format."""

    keep: tuple[str, ...] = ()
    chosen: tuple[Column, ...] = ()
    top_k: int = 0
    """Classes that are needed; 0: as many as were asked for."""

    @property
    def error(self) -> str:
        """The column that says why a picture could not be read, empty where none does."""
        if not self.chosen:
            return "error"
        return next((column.name for column in self.chosen if column.source == "error"), "")

    def row(self, prediction: Prediction, kept: Cells) -> dict[str, Any]:
        """Return a row of the chosen columns."""
        return {column.name: column.value(prediction, kept) for column in self.chosen}

    def identity(self, path: str, kept: Cells) -> dict[str, str]:
        """Return what the row of a picture says of it, by column, whatever is predicted."""
        if not self.chosen:
            return {"path": path, **kept}
        said = {"path": path, **{_KEPT + name: cell for name, cell in kept.items()}}
        return {column.name: said[column.source] for column in self.chosen if column.is_known}


def layout_of(keep: str, columns: str, classes: Sequence[str], top_k: int) -> Layout:
    """Return the layout of `--keep A,B --columns A,label,...`.

    Args:
        keep: columns of the input table, with commas between them.
        columns: columns of the output, or NAME=COLUMN to call one otherwise; empty: all of the format.
        classes: names of the network's classes.
        top_k: classes that are named.

    Raises:
        UserError: a column that there is not, or one name for two things.
    """
    kept = listed(keep, "--keep")
    if not columns:
        if taken := [name for name in kept if name in _OWN]:
            raise UserError(
                f"--keep {taken[0]}: the output has a column of that name\n"
                f"  --columns NAME={_KEPT}{taken[0]},... calls it otherwise"
            )
        return Layout(kept)
    sources = _sources(kept, classes, top_k)
    chosen: list[Column] = []
    for entry in listed(columns, "--columns"):
        name, equals, source = entry.partition("=")
        source = source if equals else name
        if not equals and source == _ALL:
            chosen += [_of_class(one, one) for one in classes]
        elif source.startswith(_ONE):
            if source.removeprefix(_ONE) not in classes:
                hint = did_you_mean(source.removeprefix(_ONE), classes)
                raise UserError(f"--columns {entry}: the network knows no such class{hint}")
            chosen.append(_of_class(name, source.removeprefix(_ONE)))
        elif source in kept and source in sources:
            raise UserError(
                f"--columns {entry}: '{source}' is a column of the table and one of the output\n"
                f"  {source}={_KEPT}{source} is the table's; without --keep {source} it is the output's"
            )
        elif source in kept or source in sources:
            chosen.append(Column(name, *sources[_KEPT + source if source in kept else source]))
        else:
            allowed = [*kept, *(one for one in sources if not one.startswith(_KEPT)), _ALL, f"{_ONE}CLASS"]
            hint = did_you_mean(source, allowed)
            raise UserError(
                f"--columns {entry}: there is no column '{source}'{hint}\n  allowed: {', '.join(allowed)}; "
                "other columns of the table by --keep"
            )
    names = [column.name for column in chosen]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--columns has {twice[0]} twice\n  NAME={twice[0]} calls one otherwise")
    needs_all = any(column.source.startswith(_ONE) for column in chosen)
    return Layout(kept, tuple(chosen), len(classes) if needs_all else 0)


def listed(text: str, flag: str) -> tuple[str, ...]:
    """Return the names of `--keep A,B`.

    Raises:
        UserError: an empty name, or one twice.
    """
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{flag} {text}: {'a name is empty' if '' in names else 'a name comes twice'}")
    return names


def _sources(kept: Sequence[str], classes: Sequence[str], top_k: int) -> dict[str, tuple[Kind, Value, str]]:
    found = {name: (kind, value, name) for name, (kind, value) in _OF_PICTURE.items()}
    for place in range(min(top_k, len(classes))):
        name, probability = f"name{place + 1}", f"probability{place + 1}"
        found[name] = ("str", _of_place(place, 0), name)
        found[probability] = ("float", _of_place(place, 1), probability)
    for name in kept:
        found[_KEPT + name] = ("str", _cell_of(name), _KEPT + name)
    return found


def _of_place(place: int, part: int) -> Value:
    return lambda p, _: p.top[place][part] if p.top else None


def _cell_of(name: str) -> Value:
    return lambda _, kept: kept[name]


def _of_class(name: str, one: str) -> Column:
    return Column(name, "float", lambda p, _: dict(p.top).get(one), _ONE + one)


@dataclass
class Carried:
    """Rows of pictures on their way through a network: it is given the paths, and what was carried along waits."""

    rows: Iterator[tuple[str, Cells]]
    waiting: deque[Cells] = field(default_factory=deque)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        path, kept = next(self.rows)
        self.waiting.append(kept)
        return path

    def next_cells(self) -> Cells:
        """Return what was carried along with the next picture that has come through."""
        return self.waiting.popleft()


def require_readable(predictions: Iterable[Prediction], layout: Layout, can_resume: bool) -> None:
    """Refuse to leave a row without an answer where no column could say why.

    Raises:
        UserError: naming the picture.
    """
    failed = [p for p in predictions if p.error]
    if failed and not layout.error:
        then = "; --resume goes on" if can_resume else ""
        raise UserError(
            f"{counted(len(failed), 'picture')} cannot be read, and no column could say so: {failed[0].path}: "
            f"{failed[0].error}\n  mend or leave out the picture, or add error to --columns{then}"
        )
