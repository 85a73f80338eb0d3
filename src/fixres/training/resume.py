"""How a run starts: fresh, or from a checkpoint, and what may differ then."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fixres.config.loading import by_key, saved_values, to_yaml, validate
from fixres.config.recipe import Data, Recipe, Stage
from fixres.config.yaml_text import parse
from fixres.data.all_labelled import open_to_train
from fixres.data.collections import Collection, differ_in_place_only, open_splits
from fixres.data.sampling import num_epoch_samples
from fixres.errors import UserError
from fixres.io.files import write_text
from fixres.runtime.run_folder import MuteLog, RunLog, read_events
from fixres.training.context import image_lists
from fixres.training.picture_files import Look, look_at_files, other_names, write_files
from fixres.training.start_checks import StartChecks
from fixres.training.state import read_state

MAY_DIFFER = (
    "runtime.",
    "output.",
    "data.workers",
    *(
        f"evaluation.{name}"
        for name in (
            *("sizes", "batch_size", "every_epochs", "select_size", "keep", "ship", "probe_sizes", "control"),
            *("also", "corrupt"),
        )
    ),
)
"""Settings a resumed run may change: none of them decides what a training step sees."""


def find_start(folder: Path, recipe_text: str, resume: bool, extend: bool = False) -> tuple[dict[str, Any] | None, str]:
    """Return the saved state to go on from, if any, and how the run starts, in words. The order counts.

    1. Not resuming, and the folder holds a run: refused.
    2. Not resuming: from the beginning.
    3. Resuming without a checkpoint: from the beginning, and it says so; if there is a product, by the recipe of that
       product only.
    4. Resuming: from the checkpoint, if the recipe is the same but for the place of its data; with `extend`, or has
       more epochs.

    Raises:
        UserError: case 1, case 3 or 4 with another recipe, or case 4 with an unreadable checkpoint.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give a folder with --out")
    holds_run = any((folder / name).exists() for name in ("metrics.jsonl", "checkpoints", "recipe.yaml"))
    if not resume and holds_run:
        raise UserError(f"{folder} already holds a run\n  go on with --resume, or give another folder with --out")
    if not resume:
        return None, "start: from the beginning"
    saved = read_state(folder)
    recipe = folder / "recipe.yaml"
    if saved is None:
        if recipe.exists() and (folder / "model").exists():
            _require_same(folder, _changed(recipe.read_text(), recipe_text))
        return None, f"start: {folder} holds no checkpoint, so from the beginning"
    changed = _changed(saved["recipe"], recipe_text)
    for key in _lengths_spelt_otherwise(saved, recipe_text) & set(changed):
        del changed[key]
    longer = {key for key, line in changed.items() if extend and _is_extension(line, saved["stage_index"])}
    _require_same(folder, {key: line for key, line in changed.items() if key not in longer})
    if extend:
        # Who wants more of a stage whose time was up gives it time.
        saved["is_out_of_time"] = False
    how = f"start: from the checkpoint at step {saved['step']} of stage {saved['stage_index'] + 1}"
    return saved, "; now ".join([how, *changed.values()])


def _changed(saved: str, now: str) -> dict[str, str]:
    """Return what `compare_recipes` does, but for another place of the same data."""
    changed = compare_recipes(saved, now)
    if moved(saved, now) is not None:
        del changed["data.uri"]  # said once it is known that the pictures are the same
    return changed


def _require_same(folder: Path, changed: Mapping[str, str]) -> None:
    """Refuse to go on with a run whose steps, product or figures would be those of two recipes."""
    fatal = [line for key, line in changed.items() if not key.startswith(MAY_DIFFER)]
    fatal = [line for line in fatal if not _is_end_of_time(line, folder)]
    if fatal:
        raise UserError(
            f"{folder} was started with another recipe\n  " + "\n  ".join(fatal[:12]) + "\n  go on with the saved one, "
            f"fixres train {folder / 'recipe.yaml'} --out {folder} --resume, or give another folder with --out"
        )


def compare_recipes(saved: str, now: str) -> dict[str, str]:
    """Return {key: "key: old -> new"} for every setting in which two recipe texts differ."""
    texts = [parse(text, "recipe.yaml").values for text in (saved, now)]
    old, new = map(by_key, texts)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if old.keys() != new.keys():
        # A recipe of an earlier version lacks keys of this one, and meant their defaults.
        before, after = map(saved_values, texts)
        keys = [key for key in keys if before.get(key) != after.get(key)]
    return {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys}


def _lengths_spelt_otherwise(saved: Mapping[str, Any], now: str) -> set[str]:
    """Return the keys of epoch lengths that are the same number of samples for the pictures the run began with."""
    num_images = saved["splits"]["train"][0]
    old, new = (by_key(parse(text, "recipe.yaml").values) for text in (saved["recipe"], now))
    keys = {key for key in old if key.endswith(".epoch_samples") and key in new}
    return {key for key in keys if num_epoch_samples(num_images, old[key]) == num_epoch_samples(num_images, new[key])}


def _is_extension(change: str, stage_index: int) -> bool:
    """Return whether "key: old -> new" gives more epochs or steps to the stage that was saved, or to a later one."""
    key, _, values = change.partition(": ")
    section, _, name = key.rpartition(".")
    old, _, new = values.partition(" -> ")
    if not (old.isdigit() and new.isdigit()) or name not in ("epochs", "stop_step"):
        return False
    # No stop_step is the latest.
    before, after = (math.inf if name == "stop_step" and value == "0" else int(value) for value in (old, new))
    if after <= before:
        return False
    own = {"train": 0, "fix": 1}.get(section)
    return (int(section.rpartition(".")[2]) if own is None else own) >= stage_index


def _is_end_of_time(change: str, folder: Path) -> bool:
    """Return whether "key: old -> new" writes down the step at which the stage ended because its time was up."""
    key, _, values = change.partition(": ")
    section, _, name = key.rpartition(".")
    if name != "stop_step":
        return False
    ends = [event for event in read_events(folder) if event["event"] == "out_of_time" and event["key"] == section]
    return values.rpartition(" -> ")[2] in {str(event["step"]) for event in ends}


def moved(saved: str, now: str) -> tuple[str, str] | None:
    """Return where the data of two recipe texts lies, if it is one collection by its URI, in two places."""
    old, new = (str(by_key(parse(text, "recipe.yaml").values).get("data.uri", "")) for text in (saved, now))
    return (old, new) if old != new and differ_in_place_only(old, new) else None


def open_again(data: Data, folder: Path, saved: Mapping[str, Any]) -> Collection:
    """Open the collection of a run that goes on, wherever it lies now.

    Raises:
        UserError: it cannot be opened, or its pictures or classes are not those the run began with.
    """
    try:
        collection = open_to_train(data, folder / "split.json")
        require_same_pictures(collection, saved["splits"])
        _require_same_classes(collection, saved["classes"])
    except UserError as error:
        differs = ""
        with suppress(UserError):
            differs = other_names(folder, open_splits(data)[1])
        elsewhere = "if they lie in another place now, name it: --data.uri folder:DIR"
        raise UserError("\n  ".join(filter(None, (str(error), differs, elsewhere)))) from error
    return collection


def _require_same_classes(collection: Collection, saved: Sequence[str]) -> None:
    pairs = zip_longest(saved, collection.classes, fillvalue="nothing")
    other = next(((then, now) for then, now in pairs if then != now), None)
    if other is not None:
        raise UserError(
            f"the classes of {collection.uri} are not those the run began with: '{other[0]}' then, '{other[1]}' now\n"
            "  bring back their names, or start again in another folder with --out"
        )


def look_at(collection: Collection, saved: Mapping[str, Any] | None, checks: StartChecks, log: RunLog) -> Look:
    """Look at the picture files on the main process, which tells the others what it refuses.

    Raises:
        UserError: see `look_at_files`.
    """

    def report(what: str, done: int, total: int) -> None:
        log.progress(what=what, done=done, total=total)

    if isinstance(log, MuteLog):
        return Look()
    return look_at_files(collection.splits, log.folder, saved is not None, checks, report)


def keep_files(look: Look, saved: Mapping[str, Any] | None, recipe_text: str, log: RunLog) -> None:
    """Keep the picture files as they are now, and tell what became of those the run began with."""
    places = None if saved is None else moved(saved["recipe"], recipe_text)
    if places is not None:
        log.event("note", text=f"the data moved from {places[0]} to {places[1]}: the same list of pictures")
    for note in look.notes:
        log.event("note", text=note)
    if look.is_new:
        log.require_writer()
        write_files(log.folder, look.files)


def follow_data(recipe: Recipe, saved: Mapping[str, Any], checks: StartChecks, log: RunLog) -> None:
    """Say that a run is finished, and write into it where its data lies now, for what reads its pictures.

    Raises:
        UserError: these are not the pictures the run began with.
    """
    text = to_yaml(recipe)
    log.tell(f"{log.folder} holds this run, finished: nothing is left to do")
    if isinstance(log, MuteLog) or moved(saved["recipe"], text) is None:
        return
    collection = open_again(recipe.data, log.folder, saved)
    look = look_at(collection, saved, checks, log)
    path, product = log.folder / "recipe.yaml", log.folder / "model" / "config.json"
    stored = validate(parse(path.read_text(encoding="utf-8", errors="surrogateescape"), path.name).values)
    data = stored.data.model_copy(update={"uri": recipe.data.uri})
    write_text(path, to_yaml(stored.model_copy(update={"data": data})))
    config = json.loads(product.read_text(encoding="utf-8"))
    config["fixres"]["data"]["uri"] = collection.uri
    write_text(product, json.dumps(config, indent=2) + "\n")
    keep_files(look, saved, text, log)


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
