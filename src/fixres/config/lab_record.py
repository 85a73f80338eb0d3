"""The lab record on top of a recipe: how it is run, what was published for it, what it cost, what was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

LABELS = ("Run", "Table", "Expect", "Cost", "Measured", "Source")
_LABEL = re.compile(rf"({'|'.join(LABELS)}):\s*(.*)")
_PROCESSES = re.compile(r"--nproc-per-node (\d+)")
_OWN = "fixres: the demo's photographs"


@dataclass(frozen=True)
class LabRecord:
    """The first comments of a recipe. A text the recipe does not have is empty."""

    title: str = ""
    """What the recipe is, in one line."""
    run: str = ""
    table: str = ""
    """`System: table` the recipe is a row of."""
    expect: str = ""
    """What was published, and where."""
    cost: str = ""
    """Hardware and hours, as published."""
    measured: str = ""
    """What this project measured."""
    source: str = ""

    @property
    def devices(self) -> int:
        """Processes that the command in `run` starts."""
        found = _PROCESSES.search(self.run)
        return int(found[1]) if found else 1


def read_record(path: Path) -> LabRecord:
    """Return the lab record of a recipe file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#") for line in takewhile(lambda line: line.startswith("#"), lines)]
    texts: dict[str, list[str]] = {}
    label = ""
    for line in comments:
        found = _LABEL.fullmatch(line.strip())
        if found:
            label = found[1].lower()
            texts[label] = [found[2]]
        elif label and line.startswith("    "):
            texts[label].append(line.strip())
        else:
            label = ""
    title = comments[0].strip() if comments else ""
    return LabRecord(title, **{key: " ".join(lines) for key, lines in texts.items()})


def recipe_table(shipped: dict[str, Path]) -> str:
    """Return the recipes by system and table: name, what was published, and what that cost, a line each."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name in sorted(shipped, key=_by_number):
        record = read_record(shipped[name])
        text, cost = (record.expect, record.cost.partition(" (")[0]) if record.table else (record.title, "")
        groups.setdefault(record.table or _OWN, []).append((name, _gist(text), cost))
    width = max(map(len, shipped), default=0)
    lines: list[str] = []
    for group in sorted(groups, key=lambda group: (group != _OWN, group)):
        lines += ["", group] if lines else [group]
        middle = max(len(text) for _, text, _ in groups[group])
        lines += [f"  {name:<{width}}  {text:<{middle}}  {cost}".rstrip() for name, text, cost in groups[group]]
    return "\n".join(lines) + "\n"


def _gist(text: str) -> str:
    """Return a text up to its first remark, in brackets or behind a semicolon."""
    return re.split(r";| \(", text, maxsplit=1)[0]


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts resnet50-64 before resnet50-128."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]
