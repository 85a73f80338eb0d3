"""The commands that bring a run about again, and what it ran on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fixres.config.yaml_text import dump
from fixres.reporting.run_record import Json, Record


def commands(record: Record) -> list[Json]:
    """Return what to type to get this run, its numbers and its page again: each `line`, and what it `does`."""
    run = str(record.folder)
    recipe = str(record.folder / "recipe.yaml")
    found = [_command(["train", recipe, "--out", "NEW"], "the whole run again, into another folder")]
    if record.state != "done":
        found.insert(0, _command(["train", recipe, "--out", run, "--resume"], "goes on with this run"))
    if record.product:
        found.append(_command(["eval", run], "measures what ships again and says whether the number repeats"))
        if record.ships_fix and record.train_size:
            words = ["eval", run, "--weights", "before_fix", "--sizes", str(record.train_size)]
            found.append(_command(words, "the network from before the fix"))
        swept = record.sweep("fixed") or record.sweep("before") or {}
        sizes = ",".join(str(result["size"]) for result in swept.get("results", ()))
        if sizes and swept.get("split"):
            words = ["eval", run, "--split", str(swept["split"]), "--sizes", sizes]
            found.append(_command(words, "accuracy against size of what ships"))
    found.append(_command(["report", run], "this page"))
    return found


def reproduce(record: Record) -> Json:
    """Return what the section shows."""
    environment = dict(record.environment)
    typed = environment.pop("command", None)
    if isinstance(typed, list):
        typed = shlex.join(str(word) for word in typed)
    return {
        "command": typed or "",
        "commands": commands(record),
        "facts": _flat({"seed": record.recipe.get("seed"), **environment}),
        "recipe": dump(dict(record.recipe)) if record.recipe else "",
    }


def _command(words: list[str], does: str) -> Json:
    return {"line": shlex.join(["fixres", *words]), "does": does}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: " if key != "versions" else "")
        elif isinstance(value, list):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value is not None and value != "":
            rows.append((name, str(value)))
    return rows
