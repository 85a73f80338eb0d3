"""The command `plan`: what recipes cost, before they run and without their pictures."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.checkpoints.network_of import with_network
from fixres.cli.commands.common import write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.config.lab_record import LabRecord, read_record
from fixres.config.loading import list_recipes, load
from fixres.config.stage import Above0, Positive
from fixres.errors import UserError

if TYPE_CHECKING:
    from fixres.experiments.cost import RecipeCost, StageCost

_GIB = 2**30
_PLAN_HELP = """What recipes cost, before they run and without their pictures.

Memory is an estimate: weights, gradients, optimizer and average at 4 bytes a number, and the activations autograd keeps
for the share of a batch that one device has, counted without computing. Hours come from a stated speed, that of the
first stage, or from 20 steps on this machine; reading pictures is in neither."""


@dataclass(frozen=True)
class PlanFlags:
    """Flags of `fixres plan`."""

    recipes: Annotated[tuple[str, ...], Positional("RECIPES")]
    """Shipped recipes or YAML files; several are put side by side."""
    devices: Positive | None = None
    """Processes that share every batch; left out: as many as the command in the recipe's lab record starts."""
    images_per_second: Above0 | None = None
    """Training speed of all devices together in the first stage; other stages are scaled by their multiply-adds."""
    measure: bool = False
    """Take 20 steps on this machine for the hours."""
    train_images: Positive | None = None
    """Training pictures, where they are neither on disk nor those of a known data set."""
    classes: Positive | None = None
    """Classes of the head, likewise."""
    json: Path | None = None
    """Write everything to this file; - for stdout, in place of the table."""


def plan(words: Sequence[str]) -> int:
    """`fixres plan RECIPE... [--images-per-second X | --measure] [--devices N] [--json FILE]`."""
    flags = parse_flags(words, PlanFlags, "fixres plan", _PLAN_HELP)
    if flags.measure and flags.images_per_second:
        raise UserError("--measure and --images-per-second contradict each other")
    recipes = {name: with_network(load(name, require_data=not flags.train_images)) for name in flags.recipes}
    from fixres.experiments.cost import Speed, count_pictures, plan_recipe

    speed = Speed(flags.images_per_second or 0.0, flags.measure) if flags.measure or flags.images_per_second else None
    records: list[LabRecord] = []
    costs: list[RecipeCost] = []
    refused: dict[str, UserError] = {}
    for name, recipe in recipes.items():
        record = read_record(list_recipes().get(name, Path(name)))
        try:
            pictures = count_pictures(recipe, flags.train_images or 0, flags.classes or 0)
            costs.append(plan_recipe(name, recipe, pictures, flags.devices or record.devices, speed))
            records.append(record)
        except UserError as error:
            refused[name] = error
    if len(recipes) == 1 and refused:
        raise refused.popitem()[1]
    if costs:
        if str(flags.json) != "-":
            sys.stdout.write(_side_by_side(costs, records))
        write_answer(flags.json, [_as_dict(cost, record) for cost, record in zip(costs, records, strict=True)])
    if refused:
        raise UserError("\n".join(f"{name}: {error}" for name, error in refused.items()))
    return 0


def _as_dict(cost: RecipeCost, record: LabRecord) -> dict[str, Any]:
    """Return one recipe's entry of the JSON: bytes, hours and teramultiply-adds, with what was published."""
    found = asdict(cost) | {"teramacs": cost.teramacs, "hours": cost.hours}
    for stage, entry in zip(cost.stages, found["stages"], strict=True):
        entry["memory"]["total"] = stage.memory.total
    return found | {"published": {"expect": record.expect, "cost": record.cost}}


def _side_by_side(costs: Sequence[RecipeCost], records: Sequence[LabRecord]) -> str:
    """Return a table of plain text: a column for each recipe, a block of lines for each stage."""
    rows: list[tuple[str, list[str]]] = [
        ("recipe", [cost.name for cost in costs]),
        ("train pictures", [f"{c.pictures.num_train:,} ({c.pictures.source})" for c in costs]),
        ("classes", [str(cost.pictures.num_classes) for cost in costs]),
        ("parameters", [f"{cost.num_parameters / 1e6:.2f} M" for cost in costs]),
        ("devices", [str(cost.devices) for cost in costs]),
    ]
    for number in range(max(len(cost.stages) for cost in costs)):
        blocks = [dict(_stage_lines(c.stages[number])) if number < len(c.stages) else {} for c in costs]
        keys = list(dict.fromkeys(key for block in blocks for key in block))
        rows += [("", [""] * len(costs)), *((key, [block.get(key, "-") for block in blocks]) for key in keys)]
    rows.append(("", [""] * len(costs)))
    rows.append(("petaMACs in all", [_number(cost.teramacs / 1000) for cost in costs]))
    rows.append(("hours in all", ["-" if cost.hours is None else _number(cost.hours) for cost in costs]))
    rows.append(("published for it", [record.expect or "-" for record in records]))
    rows.append(("published cost", [record.cost or "-" for record in records]))
    if len(costs) > 1:
        rows = [line for key, values in rows for line in _wrapped(key, values)]
    widths = [max(map(len, column)) for column in zip(*(values for _, values in rows), strict=True)]
    return "".join(f"{key:<19}{'   '.join(map(str.ljust, values, widths))}".rstrip() + "\n" for key, values in rows)


def _wrapped(key: str, values: Sequence[str], width: int = 44) -> Iterator[tuple[str, list[str]]]:
    """Yield a row as lines of narrow columns; nothing of a text is left out."""
    columns = [textwrap.wrap(value, width, break_long_words=False, break_on_hyphens=False) for value in values]
    for number, line in enumerate(itertools.zip_longest(*columns, fillvalue="")):
        yield key if number == 0 else "", list(line)
    if not any(columns):
        yield key, list(values)


def _stage_lines(stage: StageCost) -> list[tuple[str, str]]:
    memory = stage.memory
    shares = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in vars(memory).items() if size)
    return [
        ("stage", f"{stage.name} at {stage.size} px"),
        *([("note", stage.note)] if stage.note else []),
        ("epochs", str(stage.num_epochs)),
        ("steps", f"{stage.num_steps:,} of {stage.batch_size:,}" if stage.num_steps else "none"),
        ("pictures shown", f"{stage.num_samples:,}"),
        ("distinct an epoch", f"{stage.num_distinct:,}"),
        ("GMACs a picture", f"{stage.gmacs:.3f} forward"),
        ("petaMACs", _number(stage.teramacs / 1000)),
        ("GiB per device", f"about {memory.total / _GIB:.2f}"),
        ("of these", shares),
        ("hours", "-" if stage.hours is None else _number(stage.hours)),
    ]


def _number(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"
