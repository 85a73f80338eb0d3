"""How a run starts: fresh, or from a checkpoint, and what may differ then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fixres.config.loading import flatten, validate
from fixres.config.recipe import Recipe, Stage
from fixres.config.yaml_text import parse
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.training.context import image_lists
from fixres.training.state import read_state

MAY_DIFFER = (
    "runtime.",
    "output.",
    "data.workers",
    *(f"evaluation.{name}" for name in ("sizes", "batch_size", "every_epochs", "select_size", "keep")),
)
"""Settings a resumed run may change: none of them decides what a training step sees."""


def find_start(folder: Path, recipe_text: str, resume: bool, extend: bool = False) -> tuple[dict[str, Any] | None, str]:
    """Return the saved state to go on from, if any, and how the run starts, in words. The order counts.

    1. Not resuming, and the folder holds a run: refused.
    2. Not resuming: from the beginning.
    3. Resuming without a checkpoint: from the beginning, and it says so.
    4. Resuming: from the checkpoint, if the recipe is the same; with `extend`, or has more epochs.

    Raises:
        UserError: case 1, or case 4 with another recipe or an unreadable checkpoint.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give a folder with --out")
    holds_run = any((folder / name).exists() for name in ("metrics.jsonl", "checkpoints", "recipe.yaml"))
    if not resume and holds_run:
        raise UserError(f"{folder} already holds a run\n  go on with --resume, or give another folder with --out")
    if not resume:
        return None, "start: from the beginning"
    saved = read_state(folder)
    if saved is None:
        return None, f"start: {folder} holds no checkpoint, so from the beginning"
    changed = compare_recipes(saved["recipe"], recipe_text)
    fatal = [line for key, line in changed.items() if not key.startswith(MAY_DIFFER)]
    if extend:
        fatal = [line for line in fatal if not _is_extension(line, saved["stage_index"])]
    if fatal:
        raise UserError(
            f"{folder} was started with another recipe\n  " + "\n  ".join(fatal[:12]) + "\n  go on with the saved one, "
            f"fixres train {folder / 'recipe.yaml'} --out {folder} --resume, or give another folder with --out"
        )
    how = f"start: from the checkpoint at step {saved['step']} of stage {saved['stage_index'] + 1}"
    return saved, "; now ".join([how, *changed.values()])


def compare_recipes(saved: str, now: str) -> dict[str, str]:
    """Return {key: "key: old -> new"} for every setting in which two recipe texts differ."""
    old, new = (_flat(parse(text, "recipe.yaml").values) for text in (saved, now))
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values by dotted key, those of a list of stages as `stages.N.key`."""
    given = dict(values)
    stages = given.pop("stages", None) or []
    return flatten(given) | {f"stages.{n}.{key}": value for n, one in enumerate(stages) for key, value in one.items()}


def _is_extension(change: str, stage_index: int) -> bool:
    """Return whether "key: old -> new" gives more epochs to the stage that was saved, or to a later one."""
    key, _, values = change.partition(": ")
    section, _, name = key.rpartition(".")
    old, _, new = values.partition(" -> ")
    if name != "epochs" or not (old.isdigit() and new.isdigit() and int(new) > int(old)):
        return False
    own = {"train": 0, "fix": 1}.get(section)
    return (int(section.rpartition(".")[2]) if own is None else own) >= stage_index


def require_same_pictures(collection: Collection, saved: Mapping[str, Sequence[Any]]) -> None:
    """Refuse to go on with other pictures than the run began with: every batch would be another.

    Raises:
        UserError: a split has another file list.
    """
    found = image_lists(collection)
    for name, (count, file_list) in saved.items():
        now = found.get(name, [0, ""])
        if now != [count, file_list]:
            raise UserError(
                f"the split '{name}' of {collection.uri} is not the one the run began with: "
                f"{count:,} pictures then, {now[0]:,} now{'' if now[0] != count else ', under other names'}\n"
                "  bring back the pictures, or start again in another folder with --out"
            )


def with_warmups_of(recipe: Recipe, saved: str) -> Recipe:
    """Return an extended recipe with the warm-ups the run began with, which would follow from the number of epochs."""
    old = validate(parse(saved, "recipe.yaml").values)

    def kept(stage: Stage, before: Stage) -> Stage:
        return stage.model_copy(update={"warmup_epochs": before.warmup_epochs})

    if len(old.stages) != len(recipe.stages):
        return recipe
    pairs = zip(recipe.stages, old.stages, strict=True)
    return recipe.model_copy(
        update={
            "train": kept(recipe.train, old.train),
            "fix": kept(recipe.fix, old.fix),
            "stages": tuple(kept(now, before) for now, before in pairs),
        }
    )
