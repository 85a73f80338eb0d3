"""Recipes: the shipped ones, reading and checking one, and writing one down.

file -> mapping -> overrides merged in -> stages filled in -> strict validation -> impossible combinations
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fixres.config.defaults import TRAIN, complete, named_stages, source_key
from fixres.config.messages import mistakes
from fixres.config.plugins import load_plugins
from fixres.config.recipe import Recipe
from fixres.config.rules import problems
from fixres.config.yaml_text import Document, dump, is_given, parse, value_at
from fixres.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent / "recipes"
_MAX_BYTES = 1_000_000
_SUFFIXES = (".yaml", ".yml")


_NO_FILE = Document("the defaults", {}, {})


def list_recipes() -> dict[str, Path]:
    """Return the shipped recipes: name (the path below the folder, without .yaml) to file, sorted by name."""
    files = sorted(FOLDER.rglob("*.yaml"))
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in files}


def find_recipe(name: str | Path) -> Path:
    """Return the file of a shipped recipe or of a path.

    Raises UserError for an unknown name (with the nearest), a missing file and a folder.
    """
    shipped = list_recipes()
    if str(name) in shipped:
        return shipped[str(name)]
    path = Path(name)
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            raise UserError(f"'{name}' is a folder; did you mean '{path / 'recipe.yaml'}'?")
        raise UserError(f"'{name}' is a folder, not a recipe; to train on its pictures give --data.uri {name}")
    if path.is_file():
        return path
    is_shipped = path.parts[:1] and any(known.startswith(f"{path.parts[0]}/") for known in shipped)
    if path.suffix in _SUFFIXES or (len(path.parts) > 1 and not is_shipped):
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = did_you_mean(path.name, [file.name for file in beside if file.suffix in _SUFFIXES])
        raise UserError(f"recipe file '{name}' not found{near}")
    folders = [str(one) for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
    hint = did_you_mean(str(name), [*shipped, *folders]) or "\n  'fixres recipes' lists those there are"
    raise UserError(
        f"unknown recipe '{name}'{hint}\n  no file or folder of that name is here; a recipe of your own ends in .yaml"
    )


def load(
    name_or_path: str | Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    require_data: bool = False,
) -> Recipe:
    """Return the completed, checked recipe of a shipped name or a YAML file (None: only defaults and `overrides`).

    `overrides` are laid over the file before stages are filled in; keys may be dotted (`{"train.size": 128}`) or
    nested. Raises UserError with all unknown keys and wrong values at once, or, when there are none, with all
    impossible combinations; `require_data` makes a missing data.uri one of them. What is wrong is named by its line in
    the file, or by its flag, `--train.size`.
    """
    document = _NO_FILE if name_or_path is None else read_document(name_or_path)
    flat = flatten(overrides or {})
    _check_stage_keys(document, flat)
    raw = merge(document.values, flat)
    recipe = validate(raw, document, flat)
    found = [(_origin(key, raw), text) for key, text in problems(recipe, require_data)]
    found += _without_effect(document, flat, recipe)
    _raise_all([(key, f"{key}: {text}") for key, text in found], document, flat)
    return recipe


def read_document(name_or_path: str | Path) -> Document:
    """Return the mapping and the line numbers of a shipped recipe or a YAML file, unchecked."""
    path = find_recipe(name_or_path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"'{name_or_path}' is not a recipe: larger than {_MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{name_or_path}' is not a recipe: not a text file (UTF-8)") from None
    except OSError as error:
        raise UserError(f"cannot read '{name_or_path}': {error.strerror}") from None
    document = parse(text, str(name_or_path))
    if not document.values:
        raise UserError(f"{name_or_path}: the file is empty; two lines are enough:\n  data:\n    uri: folder:photos")
    return document


def validate(raw: Mapping[str, Any], document: Document = _NO_FILE, flags: Collection[str] = ()) -> Recipe:
    """Return the recipe of the mapping `raw`, completed and strictly typed.

    Raises UserError naming every unknown key and wrong value, and where it was written: in the file, or as a flag.
    """
    load_plugins()
    filled = complete(raw)
    try:
        return Recipe.model_validate_json(json.dumps(filled), strict=True)
    except ValidationError as error:
        found = mistakes(error, filled)
        # A wrong default fills several keys; only the one that was written is worth naming.
        given = {key: text for key, text in found.items() if key in raw or is_given(raw, key)}
        _raise_all((given or found).items(), document, flags)
        raise


def to_yaml(recipe: Recipe, header: str = "") -> str:
    """Return `recipe` as YAML without blanks that `load` reads back as an equal recipe; `header` becomes comments."""
    values = recipe.model_dump(mode="json", exclude={"train", "fix"} if recipe.stages else {"stages"})
    comments = "".join(f"# {line}\n" for line in header.splitlines())
    return comments + dump(values)


def saved_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved recipe's values by dotted key, `stages.N.key` those of a list, completed with what it lacks.

    Keys that its version did not know yet are there with their defaults; a recipe that is none any more stays as it is.
    """
    try:
        known = by_key(validate(values).model_dump(mode="json"))
    except UserError:
        known = {}
    return {**known, **by_key(values)}


def by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values by dotted key, those of a list of stages as `stages.N.key`."""
    given = dict(values)
    stages = given.pop("stages", None) or []
    return flatten(given) | {f"stages.{n}.{key}": value for n, one in enumerate(stages) for key, value in one.items()}


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested overrides by dotted key; the free-form model.kwargs keep one level, `model.kwargs.NAME`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key.count(".") < 2:
            flat.update(flatten(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with each dotted override set; naming a key of `fix` enables it."""
    merged: dict[str, Any] = json.loads(json.dumps(base))
    for key, value in overrides.items():
        parts = key.split(".")
        place: Any = merged
        for name, following in pairwise(parts):
            index = int(name) if isinstance(place, list) else name
            child = place.setdefault(index, {}) if isinstance(place, dict) else place[index]
            is_entry = isinstance(child, list) and following.isdecimal() and int(following) < len(child)
            if not (isinstance(child, dict) or is_entry):
                child = place[index] = {}
            place = child
        place[int(parts[-1]) if isinstance(place, list) else parts[-1]] = value
    names_fix = any(key.startswith("fix.") for key in overrides) and "fix.enabled" not in overrides
    if names_fix and isinstance(merged.get("fix"), dict):
        merged["fix"]["enabled"] = True
    return merged


def _check_stage_keys(document: Document, overrides: Mapping[str, Any]) -> None:
    """Refuse train and fix beside stages, and numbers of stages that do not exist."""
    values = document.values
    stages = overrides.get("stages") or values.get("stages")
    num_stages = len(stages) if isinstance(stages, list) else 0
    found = []
    for key in [*values, *overrides]:
        head, _, rest = key.partition(".")
        index = rest.partition(".")[0]
        text = ""
        if head in ("train", "fix") and num_stages and (rest or values.get(key)):
            instead = ".".join(filter(None, ["stages", "0" if head == "train" else str(num_stages - 1), rest]))
            text = f"this recipe has 'stages', which take the place of train and fix - did you mean '{instead}'?"
        elif head == "stages" and rest and not num_stages:
            text = "this recipe has no 'stages'; use train.* and fix.*"
        elif head == "stages" and rest and not (index.isdecimal() and int(index) < num_stages):
            text = f"this recipe has stages 0 to {num_stages - 1}"
        if text:
            found.append((key, f"{key}: {text}"))
    _raise_all(found, document, overrides)


def _without_effect(document: Document, overrides: Mapping[str, Any], recipe: Recipe) -> list[tuple[str, str]]:
    """Find overridden defaults that every stage which would take them sets for itself in the file."""
    found = []
    raw = merge(document.values, overrides)
    names = [name for name, stage in named_stages(recipe) if stage.enabled]
    sources = {f"{name}.{key}": source_key(f"{name}.{key}", value_at(raw, name)) for name in names for key in TRAIN}
    for key in overrides:
        # train.batch_size, which a fix takes over, is in the first place that of train.
        takers = [taker for taker, source in sources.items() if source == key and key not in sources]
        own = [given for taker in takers if (given := _setting(document.values, taker))]
        if takers and len(own) == len(takers):
            verb = "is" if len(own) == 1 else "are"
            found.append((key, f"has no effect: {' and '.join(own)} {verb} set in {document.name}; use --{own[0]}"))
    return found


def _setting(values: Mapping[str, Any], key: str) -> str:
    """Return the key that settles the stage key `key` in a file, empty when none does.

    It is the key itself; of a learning rate and its rule, base_lr where the file scales it, else lr.
    """
    stage, _, name = key.rpartition(".")
    if name in ("lr", "base_lr", "lr_rule"):
        found = "base_lr" if value_at(values, f"{stage}.base_lr") else "lr" if is_given(values, f"{stage}.lr") else ""
        return f"{stage}.{found}" if found else ""
    return key if is_given(values, key) else ""


def _origin(key: str, raw: Mapping[str, Any]) -> str:
    """Return the key a problem should point to: the one whose value was written, if any."""
    if is_given(raw, key):
        return key
    source = source_key(key, value_at(raw, key.rpartition(".")[0]))
    return source if is_given(raw, source) else key


def _raise_all(found: Iterable[tuple[str, str]], document: Document, flags: Collection[str]) -> None:
    """Raise one UserError of all (key, text) in `found`, in the order of the file, flags last; none: return."""
    placed = []
    for key, text in found:
        # Where the key was written, or the nearest one above it.
        above = key
        while above and above not in flags and above not in document.lines:
            above = above.rpartition(".")[0]
        line = document.lines.get(above, 0)
        if above in flags:
            # A flag names its key already, and whatever is typed there is a text.
            placed.append((True, 0, f"--{above}: {text.removeprefix(f'{key}: ').removesuffix(' (a text)')}"))
        else:
            placed.append((False, line, f"{document.name}:{line}: {text}" if line else text))
    lines = list(dict.fromkeys(text for *_, text in sorted(placed, key=lambda place: place[:2])))
    if len(lines) == 1:
        raise UserError(lines[0])
    if lines:
        raise UserError(f"{len(lines)} problems\n" + "\n".join(f"  {line}" for line in lines))
