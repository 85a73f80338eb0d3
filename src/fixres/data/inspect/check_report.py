"""What can be wrong with a collection: the kinds of findings, and the report they make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fixres.errors import counted, on_one_line

Severity = Literal["error", "warning", "info"]


class Kind(NamedTuple):
    """How bad it is, and what it means."""

    severity: Severity
    meaning: str


KINDS = {
    "layout": Kind("error", "the collection cannot be opened like this"),
    "classes differ": Kind("error", "classes that train does not have"),
    "unreadable": Kind("error", "files that are missing or may not be read"),
    "empty": Kind("error", "files of no bytes"),
    "truncated": Kind("error", "files that were cut short"),
    "damaged": Kind("error", "files that start like a picture and cannot be decoded"),
    "not a picture": Kind("error", "files that are no picture, whatever their name says"),
    "too large": Kind("error", "more pixels than will be decoded"),
    "too slow": Kind("error", "pictures that take longer to decode than is waited for"),
    "leak": Kind("error", "the same picture in two splits"),
    "conflicting labels": Kind("error", "the same picture in two classes"),
    "damaged inside": Kind("warning", "JPEGs with wrong bytes: decoded, but parts may be grey or displaced"),
    "near-duplicate": Kind("warning", "pictures of two splits that look the same: look at them"),
    "duplicate": Kind("warning", "the same picture twice in a class"),
    "wrong type": Kind("warning", "the content is not what the name says; read by its content"),
    "few pictures": Kind("warning", "classes with fewer than 2 pictures"),
    "missing class": Kind("warning", "classes of train without a picture"),
    "suspected label": Kind("warning", "pictures that look like another class than their label: look at them"),
    "extreme aspect": Kind("warning", "long pictures, of which the test crop throws most away"),
    "passed over": Kind("warning", "what was found and not used"),
    "smaller than the size": Kind("info", "pictures that are enlarged"),
    "metadata left out": Kind("info", "texts or profiles that cannot be read or are too long; the pixels are sound"),
    "no contrast": Kind("info", "pictures of hardly more than one grey, not compared for likeness"),
    "grey": Kind("info", "grey pictures, read as RGB"),
    "CMYK": Kind("info", "CMYK pictures, converted by Pillow"),
    "16 bit": Kind("info", "16 bits per pixel, scaled to 8"),
    "transparency": Kind("info", "pictures with transparency"),
    "animation": Kind("info", "animations: the first frame counts"),
    "turned by EXIF": Kind("info", "pictures whose EXIF tag turns them"),
}
"""Every kind, in the order of the report."""


_MANY = 20
"""Examples of what is a ranked list."""


class Place(NamedTuple):
    """Where a picture is."""

    split: str
    path: str
    label: str


@dataclass(frozen=True)
class Item:
    """One occurrence: the pictures concerned, none for a matter of classes, and what there is to say."""

    pictures: tuple[Place, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        shown = " = ".join(picture.path for picture in self.pictures)
        if len({picture.split for picture in self.pictures}) > 1:
            shown = " = ".join(f"{picture.split}: {picture.path}" for picture in self.pictures)
        return f"{shown} ({self.detail})" if shown and self.detail else shown or self.detail


@dataclass
class Report:
    """The findings about a collection by kind, and what was looked at."""

    uri: str
    num_images: dict[str, int]
    classes: tuple[str, ...]
    findings: dict[str, list[Item]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, detail: str = "", *pictures: Place) -> None:
        """Note one occurrence of a kind of `KINDS`."""
        self.findings.setdefault(kind, []).append(Item(pictures, detail))

    def of(self, severity: Severity) -> dict[str, list[Item]]:
        """Return the findings of one severity, in the order of `KINDS`."""
        return {name: items for name, kind, items in self._in_order() if kind.severity == severity}

    def count(self, severity: Severity) -> int:
        """Return the number of occurrences of one severity."""
        return sum(map(len, self.of(severity).values()))

    def as_text(self, most: int = 3) -> str:
        """Return the table: a line per kind with its count, its meaning, and the first `most` examples below."""
        counts = ", ".join(f"{name} {num:,}" for name, num in self.num_images.items())
        lines = [f"{self.uri}: {counted(len(self.classes), 'class', 'classes')}; pictures: {counts}"]
        lines += self.remarks
        width = max((len(name) for name in self.findings), default=0)
        for name, kind, items in self._in_order():
            lines.append(f"{kind.severity:<7}  {name:<{width}}  {len(items):>6,}  {kind.meaning}")
            if kind.severity == "info":
                continue
            shown = _MANY if name == "suspected label" else most
            lines += [f"{'':9}{item}" for item in items[:shown]]
            if len(items) > shown:
                lines.append(f"{'':9}... and {len(items) - shown:,} more")
        lines.append(f"{counted(self.count('error'), 'error')}, {counted(self.count('warning'), 'warning')}")
        return "".join(f"{on_one_line(line)}\n" for line in lines)

    def as_json(self) -> str:
        """Return everything, with every occurrence."""
        fields = {
            "data": self.uri,
            "num_images": self.num_images,
            "classes": list(self.classes),
            "num_errors": self.count("error"),
            "num_warnings": self.count("warning"),
            **self.measures,
            "remarks": self.remarks,
            "findings": [
                {"kind": name, **kind._asdict(), "num": len(items), "items": _items(items)}
                for name, kind, items in self._in_order()
            ],
        }
        return json.dumps(fields, indent=2) + "\n"

    def _in_order(self) -> list[tuple[str, Kind, list[Item]]]:
        return [(name, kind, self.findings[name]) for name, kind in KINDS.items() if name in self.findings]


def _items(items: Sequence[Item]) -> list[dict[str, Any]]:
    return [
        {
            "detail": item.detail,
            "pictures": [{"split": p.split, "path": on_one_line(p.path), "class": p.label} for p in item.pictures],
        }
        for item in items
    ]
