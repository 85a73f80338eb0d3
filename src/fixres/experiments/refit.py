"""`train PHOTOS --final`: what a run chose, trained once more on everything that has a label.

Nothing is left to choose or to measure on. Settings, lengths and strengths are those the run ended with, and the
figures of the product are those of that run.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fixres.config.loading import load, validate
from fixres.config.recipe import Recipe
from fixres.data.all_labelled import all_labelled
from fixres.data.collections import open_collection
from fixres.data.progressive_sizes import stage_timeline
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.results import Run
from fixres.experiments.choice_record import Record
from fixres.io.files import write_text
from fixres.runtime.run_folder import Listener, read_events, read_status
from fixres.training.absolute_paths import with_absolute_paths
from fixres.training.run import run_recipe
from fixres.training.start_checks import AS_USUAL, StartChecks

FOLDER = "final"
"""In the run folder: the run on everything."""


def refit(
    run: Path,
    out: Path,
    *,
    uri: str = "",
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checks: StartChecks = AS_USUAL,
) -> Run:
    """Train what a finished run chose on all pictures that have a label, and write a run folder.

    Args:
        run: the finished run; its product's figures are taken over and said to be its.
        out: run folder of the refit; must not hold a run unless `resume`.
        uri: pictures to train on in place of the run's own, such as these without some that are kept apart.
        resume: go on with a refit that was interrupted.
        listeners: told about every event and about progress.
        checks: how sure of folder and pictures it has to be.

    Raises:
        UserError: the run is not finished, or used what a refit cannot repeat.
        Stopped: a signal came; `resume` goes on.
    """
    if read_status(run).get("state") != "done":
        raise UserError(f"{run} is not finished, so that nothing is chosen yet\n  add --resume")
    recipe, events = load(run / "recipe.yaml"), read_events(run)
    data = recipe.data.model_copy(update={"uri": uri or recipe.data.uri})
    everything = all_labelled(open_collection(data, split_file=None if uri else run / "split.json"))
    again = refit_recipe(recipe.model_copy(update={"data": data}), events, everything.split("train"))
    found = run_recipe(again, out, resume=resume, listeners=listeners, checks=checks)
    _take_figures(run, out)
    return found


def require_own(run: Path, uri: str, settings: Mapping[str, Any], models: Sequence[str] = ()) -> None:
    """Refuse to go on with a finished run for other pictures than its own, or with other settings or networks.

    Raises:
        UserError: naming what differs.
    """
    saved = load(run / "recipe.yaml")
    record = Record.read(run)
    record.require_models(models)
    changed = record.changed(settings)
    asked = with_absolute_paths(load(run / "recipe.yaml", {**changed, "data.uri": uri}))
    if asked != saved:
        other = ", ".join(["data.uri"] * (asked.data.uri != saved.data.uri) + list(changed))
        raise UserError(
            f"{run} holds a finished run of other pictures or settings ({other})\n"
            f"  give another --out, or what it was trained with: fixres train {shlex.quote(saved.data.uri)} --final"
        )


def refit_recipe(recipe: Recipe, events: Sequence[Mapping[str, Any]], everything: Split) -> Recipe:
    """Return the recipe that repeats what shipped, without choosing, on all pictures.

    Args:
        recipe: of the run, as it was completed.
        events: of the run, which say what was chosen.
        everything: the pictures that have a label; epochs stay, their steps grow.

    Raises:
        UserError: the run had stages of its own, which a refit does not know.
    """
    if recipe.stages:
        raise UserError("a recipe with stages cannot be refitted\n  give its train and fix, or set data.train_on all")
    shipped = _shipped(recipe, events)
    values = recipe.model_dump(mode="json")
    values["data"] |= {"train_on": "all"}
    values["evaluation"] |= {"keep": "last", "ship": "last", "control": False, "sizes": [], "probe_sizes": []}
    values["evaluation"] |= {"also": [], "corrupt": ""}
    train, fix = values["train"], values["fix"]
    if shipped["kind"] == "probe":
        train["enabled"] = False
        fix |= {"enabled": True, "size": shipped["size"], "moves": "head", "solver": "cached", "head": "keep"}
        fix |= {"epoch_samples": 1.0}
        fix["decay"] = shipped.get("decay") or _decay(events, "train", shipped["size"])
    else:
        train["patience"] = 0
        if train["head"] == "solved":
            train["decay"] = _decay(events, "train", train["size"])
        if train["enabled"]:
            timeline = stage_timeline(everything, recipe.train, train["size"], seed=recipe.seed, stage_index=0)
            train["stop_step"] = _steps(events, timeline.total_steps)
        fix["enabled"] = shipped["kind"] == "fixed"
        if fix["enabled"]:
            fix |= {"size": shipped["size"], "decay": _decay(events, "fix", shipped["size"])}
            if fix["mix"] == "auto":
                fix |= {"mix": [e for e in events if e["event"] == "mix" and e["size"] == shipped["size"]][-1]["share"]}
            # Each size has a pull of its own, and a recipe one.
            fix |= {"mix_also": [], "head_sizes": []}
            if fix["solver"] != "sgd":
                fix |= {"epoch_samples": 1.0}
    return validate(values)


def _shipped(recipe: Recipe, events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the candidate that shipped: its kind, `probe`, `trained` or `fixed`, and its size."""
    candidates = [event for event in events if event["event"] == "candidates"]
    if candidates:
        found: Mapping[str, Any] = next(one for one in candidates[-1]["candidates"] if one["is_shipped"])
        return found
    last = [event for event in events if event["event"] == "comparison"][-1]["rows"][-1]
    return {"kind": "fixed" if recipe.fix.enabled else "trained", "size": last["size"]}


def _decay(events: Sequence[Mapping[str, Any]], stage: str, size: int) -> float:
    """Return the strength of the pull that was chosen where a head was solved at a size."""
    solved = [e for e in events if e["event"] == "solved" and e["size"] == size and e["decay"] is not None]
    own = [event for event in solved if event["stage"] == stage] or solved
    if not own:
        raise UserError(f"the run kept its head as it was at {size} px, which a refit cannot repeat")
    return float(own[-1]["decay"])


def _steps(events: Sequence[Mapping[str, Any]], num_steps: int) -> int:
    """Return at which of `num_steps` a training has come as far as the weights that were kept; 0: at their end."""
    ends = {event["event"]: event for event in events if event.get("stage") == "train"}
    if "kept" not in ends:
        return 0
    share: float = ends["kept"]["step"] / ends["plan"]["total_steps"]
    if share == 1:
        return 0
    return max(1, round(share * num_steps))


def _take_figures(run: Path, out: Path) -> None:
    """Give the product of a refit the figures of the run before, and say whose they are."""
    before = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))["fixres"]
    path = out / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["fixres"] |= {"results": before["results"], "evaluation": before["evaluation"], "figures_of": str(run)}
    write_text(path, json.dumps(config, indent=2) + "\n")
    card = out / "model" / "README.md"
    note = (
        "\nIt was trained on every picture that has a label, so that none is left to measure it on: the figures in "
        "config.json are those of the run whose choices it repeats.\n"
    )
    write_text(card, card.read_text(encoding="utf-8") + note)
