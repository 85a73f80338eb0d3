"""Which columns of a table hold the pictures and their labels: as named, as usual, or one column for each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.data.sources.table_rows import OF_CLASS, column_names, first_rows
from fixres.errors import UserError

IMAGE, LABEL, SPLIT = "path", "label", "split"
"""Names of columns that need not be said."""
EVERY_CLASS = "*"
"""For `label=`: every column that holds nothing but 0 and 1 is one class."""
_IMAGES = (
    *("path", "image_path", "img_path", "file_path", "filepath", "filename", "file_name", "fname"),
    *("image", "image_id", "imageid", "image_name", "image index", "img", "img_id", "id_code", "id", "name"),
)
"""What columns of pictures are called elsewhere, the surest first."""
_LABELS = (
    "label",
    "class",
    "class_name",
    "category",
    "target",
    "breed",
    "species",
    "diagnosis",
    "dx",
    "finding labels",
)
_INDEX = ("", "unnamed: 0", "index", "__index_level_0__")
"""What pandas calls the numbers of the rows."""
_SAMPLE = 100
_TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold."""

    image: str
    label: str
    classes: tuple[str, ...] = ()
    """Columns that stand for one class each, in place of `label`."""
    is_image_guessed: bool = False
    is_label_guessed: bool = False

    def in_words(self) -> str:
        """Return what was taken for what."""
        labels = f"one column for each of {len(self.classes)} classes" if self.classes else f"labels in {self.label!r}"
        return f"pictures in {self.image!r}, {labels}"


def find_columns(path: Path, given: Mapping[str, str], others: Sequence[str] = ()) -> Columns:
    """Return the columns of a table.

    Args:
        path: the table; where it cannot be read the usual names are returned, and reading it says what is wrong.
        given: `image`, `label` and `split` as they were named.
        others: columns that hold something else.

    Raises:
        UserError: `label` names several columns that are not all there.
    """
    names = column_names(path)
    image = given.get("image") or (IMAGE if IMAGE in names else _usual(names, _IMAGES))
    found = image or IMAGE
    label = given.get("label", "")
    if label and label not in names and names and (label == EVERY_CLASS or "," in label):
        rest = _rest(names, (found, given.get("split") or SPLIT, *others))
        classes = one_hot(path, rest) if label == EVERY_CLASS else tuple(part.strip() for part in label.split(","))
        if not classes:
            raise UserError(f"{path}: ?label={EVERY_CLASS} needs columns of 0 and 1, one 1 in each row\n  ?label=NAME")
        return Columns(found, LABEL, classes)
    is_guessed = not given.get("image") and found != IMAGE
    if label or LABEL in names or not image:
        return Columns(found, label or LABEL, (), is_guessed)
    rest = _rest(names, (found, given.get("split") or SPLIT, *others))
    known = [name for name in rest if name.lower() in _LABELS]
    if only := rest if len(rest) == 1 else known if len(known) == 1 else []:
        return Columns(found, only[0], (), is_guessed, True)
    return Columns(found, LABEL, one_hot(path, rest), is_guessed, True)


def image_column(path: Path) -> str:
    """Return the column of a table that names the pictures, `path` where there is none by a usual name."""
    names = column_names(path)
    return IMAGE if IMAGE in names else _usual(names, _IMAGES) or IMAGE


def one_hot(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Return those of the columns that hold only 0 and 1, where each row has one 1 in them; else nothing."""
    rows = first_rows(path, columns, _SAMPLE)
    truth = {name: [_TRUTH.get(row[name].strip().lower()) for row in rows] for name in columns}
    binary = [name for name, cells in truth.items() if cells and None not in cells]
    sums = [sum(truth[name][k] or 0 for name in binary) for k in range(len(rows))]
    return tuple(binary) if len(binary) > 1 and set(sums) == {1} else ()


def why_no_label(path: Path, columns: Columns) -> str:
    """Return what a table without a column of labels holds in its place, where that can be told; else nothing."""
    rest = _rest(column_names(path), (columns.image, SPLIT))
    rows = first_rows(path, rest, _SAMPLE)
    numbers = {name: [_number(row[name]) for row in rows] for name in rest}
    shares = [name for name, cells in numbers.items() if cells and all(0 <= cell <= 1 for cell in cells)]
    if len(shares) < 2:
        return ""
    sums = [sum(numbers[name][k] for name in shares) for k in range(len(rows))]
    if all(numbers[name][k] in (0, 1) for name in shares for k in range(len(rows))):
        return f"its columns {_some(shares)} hold 0 and 1, up to {max(sums):.0f} classes a picture; one is needed"
    return f"its columns {_some(shares)} hold probabilities, as a submission does, and no labels"


def class_of(cells: Mapping[str, str | None], where: str) -> str:
    """Return the one class whose column holds 1.

    Raises:
        UserError: none or several do, or one holds something else.
    """
    chosen = []
    for role, text in cells.items():
        if role.startswith(OF_CLASS):
            value = _TRUTH.get((text or "").strip().lower())
            if value is None:
                named = role.removeprefix(OF_CLASS)
                raise UserError(f"{where}: column '{named}' holds {text!r}\n  allowed are 0 and 1, one 1 a row")
            if value:
                chosen.append(role.removeprefix(OF_CLASS))
    if len(chosen) != 1:
        found = f"has {' and '.join(chosen)}" if chosen else "has no class"
        raise UserError(f"{where} {found}: one picture has one class\n  leave the line out, or ?label=NAME")
    return chosen[0]


def _usual(names: Sequence[str], usual: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in usual if name in by_lower), "")


def _rest(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    return [name for name in names if name not in taken and name.lower() not in _INDEX]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def class_roles(classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (role, column) for columns that stand for one class each."""
    yield from ((OF_CLASS + name, name) for name in classes)
