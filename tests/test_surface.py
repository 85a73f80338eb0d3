"""The names users write down, in scripts, recipes and programs, stay what `tests/surface/` says they are."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fixres
from fixres.checkpoints.folder_config import Pretrained
from fixres.cli import parse
from fixres.cli.help import Entry
from fixres.cli.main import COMMANDS, body_of, main
from fixres.config.loading import list_recipes
from fixres.config.messages import keys_of
from fixres.config.recipe import Recipe, Stage
from fixres.errors import UserError
from fixres.reporting.page import read_report
from fixres.runtime.run_folder import read_events
from fixres.training.cached_solver.logistic_head import Candidate
from fixres.training.cached_solver.solve import Solution

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "surface"
REWRITE = "FIXRES_REWRITE_SURFACE"
Names = Callable[[Path, Path], Iterable[str]]
"""From a finished run with a fix, to be read, and an empty folder to the names."""
WITH_SUBCOMMANDS = ("data", "bench")


def flattened(value: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted path of every value in JSON, the elements of a list as []."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from flattened(inner, f"{path}[]")
    else:
        # Whether a list is empty, or a value there, is not for the names to say.
        yield path


def ends(names: Iterable[str]) -> list[str]:
    """Return the names, sorted, without those that only lead to others: no `rows` where there is `rows[].size`."""
    found = sorted(set(names))
    inner = {name[: match.start()] for name in found for match in re.finditer(r"\.|\[", name)}
    return [name for name in found if name not in inner]


def commands(_run: Path, _folder: Path) -> Iterator[str]:
    for name in COMMANDS:
        if name not in WITH_SUBCOMMANDS:
            yield name
            continue
        with pytest.raises(UserError) as refused:
            body_of(name)(["none-like-this"])
        listed = re.search(r"it has (.*)", str(refused.value))
        subs = listed[1].split(", ") if listed else re.findall(rf"fixres {name} (\w+)", str(refused.value))
        yield from (f"{name} {sub}" for sub in subs)


def flags(run: Path, folder: Path) -> Iterator[str]:
    """Yield `COMMAND --flag`, and `COMMAND WORD` for what has no flag, of whatever dataclass a command parses."""
    seen: dict[str, set[str]] = {}

    def note(usage: str, _description: str, groups: Mapping[str, Iterable[Entry]]) -> None:
        name = re.match(r"fixres ([a-z ]*[a-z])", usage)
        assert name
        # The recipe and its keys have surfaces of their own.
        from_recipe = {"RECIPE", "--seed"} if "[RECIPE]" in usage else set()
        seen.setdefault(name[1], set()).update({entry.name for entry in groups[""]} - from_recipe)
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse, "print_help", note)
        # A grid has flags of its own.
        for words in (*map(str.split, commands(run, folder)), ["study", "--train-sizes", "64"]):
            assert main([*words, "--help"]) == 0
    assert set(seen) == set(commands(run, folder))
    return (f"{name} {flag}" for name, found in seen.items() for flag in found)


def recipe_keys(_run: Path, _folder: Path) -> Iterator[str]:
    yield from (key for key, _ in keys_of(Recipe) if key != "stages")
    yield from (f"stages.N.{key}" for key, _ in keys_of(Stage))


def recipes(_run: Path, _folder: Path) -> Iterable[str]:
    return list_recipes()


def public_names(_run: Path, _folder: Path) -> Iterator[str]:
    """Yield every public name; of functions and classes with parameters, and the defaults that are plain values."""
    for name in fixres.__all__:
        found = getattr(fixres, name)
        # The keys of a recipe are recipe keys, and an error's text is no surface.
        is_bare = not callable(found) or found in (fixres.Recipe, fixres.UserError)
        yield name if is_bare else f"{name}({_parameters(found)})"


def _parameters(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    plain = (str, int, float, bool, tuple, type(None))
    words, is_keyword = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            words.append("*")
            is_keyword = True
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = parameter.default
        shown = repr(default) if isinstance(default, plain) else "..."
        words.append(f"{stars}{parameter.name}" + ("" if default is parameter.empty else f"={shown}"))
    return ", ".join(words)


def run_folder(run: Path, _folder: Path) -> Iterator[str]:
    return _files(run)


def product_folder(run: Path, _folder: Path) -> Iterator[str]:
    return _files(run / "model")


def _files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def product_config(run: Path, _folder: Path) -> Iterator[str]:
    content = json.loads((run / "model" / "config.json").read_text())
    # What else timm writes there is timm's.
    content["pretrained_cfg"] = {k: v for k, v in content["pretrained_cfg"].items() if k in Pretrained.model_fields}
    return flattened(content)


def events(run: Path, _folder: Path) -> Iterator[str]:
    """Yield `EVENT` and `EVENT.key` of metrics.jsonl: those of the run, and all that the code names."""
    for event in read_events(run):
        yield from flattened({event.pop("event"): event})
    old_head = Candidate(None, 0.0, 0.0, 0)
    yield from flattened({"solved": Solution("folded", 2, 2, old_head, (old_head,), 0.0, 0.0).as_dict()})
    for path in sorted((ROOT / "src" / "fixres").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if ".event(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "event":
                yield from _named_event(node)


def _named_event(call: ast.Call) -> Iterator[str]:
    if call.args and isinstance(call.args[0], ast.Constant):
        yield call.args[0].value
        for keyword in call.keywords:
            unpacked = [] if keyword.arg else [node for node in ast.walk(keyword.value) if isinstance(node, ast.Dict)]
            keys = [key.value for node in unpacked for key in node.keys if isinstance(key, ast.Constant)]
            yield from (f"{call.args[0].value}.{key}" for key in ([keyword.arg] if keyword.arg else keys))


def answered(folder: Path, *words: object) -> Iterator[str]:
    """Yield the keys a command leaves in the file of `--json`."""
    out = folder / "answer.json"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*map(str, words), "--json", str(out)]) == 0
    return flattened(json.loads(out.read_text()))


def printed(*words: object) -> Iterator[str]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*map(str, words)]) == 0
    return flattened(json.loads(said.getvalue()))


def eval_json(run: Path, folder: Path) -> Iterator[str]:
    asked = ("--sizes", "32,48", "--bootstrap", 10, "--calibrate", "--per-class", "--confusion", "--against", run)
    yield from answered(folder, "eval", run, "--workers", 0, *asked)
    yield from answered(folder, "eval", run, "--workers", 0, "--tta", "flip", "--corrupt", "blur=1", "--bootstrap", 0)


def eval_ensemble_json(run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "eval", run, "--workers", 0, "--ensemble-sizes", "32,48")


def eval_cascade_json(run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "eval", run, "--workers", 0, "--cascade", "32,48")


def predict_json(run: Path, folder: Path) -> Iterator[str]:
    Image.new("RGB", (60, 50), "red").save(folder / "red.png")
    (folder / "bad.png").write_bytes(b"no picture")
    out = folder / "found.json"
    pictures = [str(folder / name) for name in ("red.png", "bad.png")]
    main(["predict", str(run), *pictures, "--threshold", "0.5", "--format", "json", "--out", str(out)])
    return flattened(json.loads(out.read_text()))


def extract_folder(run: Path, folder: Path) -> Iterator[str]:
    assert main(["extract", str(run), "--out", str(folder / "arrays"), "--workers", "0", "--quiet"]) == 0
    return _files(folder / "arrays")


def extract_json(run: Path, folder: Path) -> Iterator[str]:
    extract_folder(run, folder)
    return flattened(json.loads((folder / "arrays" / "extract.json").read_text()))


def score_json(run: Path, folder: Path) -> Iterator[str]:
    extract_folder(run, folder)
    return answered(folder, "score", folder / "arrays")


def advise_json(run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "advise", run, "--sizes", "32,48", "--crop-ratios", 0.875, "--fixed", "no")


def plan_json(run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "plan", run / "recipe.yaml", "--images-per-second", 100)


def report_json(run: Path, _folder: Path) -> Iterator[str]:
    content = read_report([run]).content()
    for one in content["runs"]:
        # Its keys are recipe keys.
        one["recipe"] = None
    return flattened(content)


def models_json(_run: Path, _folder: Path) -> Iterator[str]:
    return printed("models", "test_resnet", "--json")


def data_check_json(_run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "data", "check", "synthetic:classes=2,images=8,size=40", "--workers", 0, "--quiet")


def data_stats_json(_run: Path, folder: Path) -> Iterator[str]:
    return answered(folder, "data", "stats", "synthetic:classes=2,images=8,size=40", "--workers", 0, "--quiet")


SURFACES: dict[str, Names] = {
    function.__name__: function
    for function in (
        commands,
        flags,
        recipe_keys,
        recipes,
        public_names,
        run_folder,
        product_folder,
        product_config,
        events,
        eval_json,
        eval_ensemble_json,
        eval_cascade_json,
        predict_json,
        extract_folder,
        extract_json,
        score_json,
        advise_json,
        plan_json,
        report_json,
        models_json,
        data_check_json,
        data_stats_json,
    )
}


def difference(name: str, frozen: Sequence[str], found: Sequence[str]) -> str:
    """Return what is other than it was and what to do about it; empty when nothing is."""
    added, removed = sorted(set(found) - set(frozen)), sorted(set(frozen) - set(found))
    if not added and not removed:
        return ""
    lines = [*(f"  added: {one}" for one in added), *(f"  removed: {one}" for one in removed)]
    return "\n".join(
        [
            f"tests/surface/{name}.txt does not say what is there now",
            *lines,
            "People have written these names down: a change is a decision. Give it a line in CHANGELOG.md, then",
            f"  {REWRITE}=1 python -m pytest tests/test_surface.py",
        ]
    )


@pytest.mark.parametrize("name", SURFACES)
def test_names_that_users_write_down_stay(name: str, fixed_run: Path, tmp_path: Path) -> None:
    found = ends(SURFACES[name](fixed_run, tmp_path))
    assert len(found) > 1
    path = FOLDER / f"{name}.txt"
    if os.environ.get(REWRITE):
        path.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    frozen = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    told = difference(name, frozen, found)
    assert not told, told
    assert frozen == sorted(frozen)


def test_every_file_of_names_is_compared() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.txt" for name in SURFACES}


def test_a_changed_name_is_said_with_what_to_do() -> None:
    assert difference("flags", ["a --x", "a --y"], ["a --y", "a --x"]) == ""
    told = difference("flags", ["a --x", "a --y"], ["a --x", "a --z"])
    assert "added: a --z\n  removed: a --y\n" in told
    assert "CHANGELOG.md" in told
    assert f"{REWRITE}=1 python -m pytest tests/test_surface.py" in told
    assert list(flattened({"a": [{"b": 1}, {"c": []}], "d": {}})) == ["a[].b", "a[].c", "d"]
    assert ends(["a", "a[].b", "a[].b", "c d"]) == ["a[].b", "c d"]
