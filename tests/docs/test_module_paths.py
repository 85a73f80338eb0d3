"""Documents, docstrings and comments name modules, functions and files that are there."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fixres
from fixres.config.messages import find_field

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "fixres"
PACKAGES = sorted({path.stem for path in SOURCE.iterdir() if path.suffix in ("", ".py")} - {"__init__", "__pycache__"})
_KINDS = (
    "*.md",
    "docs/*.md",
    "benchmarks/**/*.md",
    "src/**/*.md",
    "src/**/*.yaml",
    "src/**/*.html",
    "src/**/*.j2",
    "pyproject.toml",
    "Makefile",
)
_PROGRAMS = ("hubconf.py", ".ci/run", "deploy/*", "scripts/**/*", "examples/*.py")
DOCUMENTS = sorted(
    path
    for pattern in (*_KINDS, *_PROGRAMS)
    for path in ROOT.glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
)
CODE = sorted([*SOURCE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
GONE = {"CHANGELOG.md": {"fixres.reference", "fixres.plots", "fixres.commands.catalogue"}}
"""What a document names because it is there no longer."""

_ENDINGS = r"(?:py|json|yaml|md|txt|csv|pbtxt)\b"
# No file of this name (deploy/fixres.service), no attribute of something else.
_DOTTED = re.compile(r"(?<![\w./-])fixres(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?")
_RUN = re.compile(r"-m ((?:fixres|tools|tests|benchmarks)(?:\.\w+)*)")
_IMPORT = re.compile(r"from (fixres[\w.]*) import (\([^)]*\)|[^\n#`;]*)")
_RELATIVE = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.(?!{_ENDINGS})[A-Za-z_]\w*)+)")
_SLASHED = re.compile(
    rf"(?<![\w./-])((?:src|tests|tools|benchmarks)/[\w./*{{}}-]+|(?:{'|'.join(PACKAGES)})/[\w/]+\.py)"
)


def is_there(dotted: str) -> bool:
    """Return whether `package.module.name` can be imported, or is the attribute of something that can."""
    first, *rest = re.split(r"[.:]", dotted)
    found: Any = import_module(first)
    done = first
    for part in rest:
        done = f"{done}.{part}"
        place = ROOT / "src" / done.replace(".", "/")
        if isinstance(found, ModuleType) and (place.is_dir() or place.with_suffix(".py").exists()):
            found = import_module(done)
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            return False
    return True


def is_program(dotted: str) -> bool:
    """Return whether `python -m` runs it."""
    places = [folder / dotted.replace(".", "/") for folder in (ROOT / "src", ROOT)]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__main__.py") if file.exists()]
    return any('if __name__ == "__main__":' in file.read_text(encoding="utf-8") for file in files)


def wrong_paths(text: str) -> Iterator[str]:
    """Yield every path of a module, an attribute or a file of ours in `text` that is not there."""
    yield from (name for name in _DOTTED.findall(text) if not is_there(name))
    yield from (f"-m {name}" for name in _RUN.findall(text) if not is_program(name))
    for module, names in _IMPORT.findall(text):
        for name in re.findall(r"(\w+)(?: as \w+)?", names):
            if is_there(module) and not is_there(f"{module}.{name}"):
                yield f"{module}.{name}"
    # Sections of a recipe are called like packages: `data.uri`.
    yield from (name for name in _RELATIVE.findall(text) if find_field(name) is None and not is_there(f"fixres.{name}"))
    for name in _SLASHED.findall(text):
        is_pattern = re.search(r"[*{}]|[A-Z]{2}", name) is not None
        if not is_pattern and not _is_file_or_folder(name.rstrip(".")):
            yield name


def _is_file_or_folder(name: str) -> bool:
    return any((folder / end).exists() for folder in (ROOT, SOURCE) for end in (name, f"{name}.py"))


def words_of(path: Path) -> str:
    """Return the text of a document; of Python code what is said in strings and comments, for imports say the rest."""
    text = path.read_text(encoding="utf-8")
    if path not in CODE:
        return text
    said = [tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in said)


@pytest.mark.parametrize("group", [DOCUMENTS, CODE], ids=["documents", "code"])
def test_what_is_named_is_there(group: list[Path]) -> None:
    assert len(group) > 30
    wrong = [
        f"{path.relative_to(ROOT)} names {name}"
        for path in group
        for name in wrong_paths(words_of(path))
        if name.removeprefix("-m ") not in GONE.get(path.name, ())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`fixres.reference` and `fixres.errors`", ["fixres.reference"]),
        ("python -m fixres train, python -m fixres.reporting.charts", ["-m fixres.reporting.charts"]),
        ("`fixres.models.released.RELEASED` and fixres.models.released.LOST", ["fixres.models.released.LOST"]),
        ("from fixres.data.loader import train_batches, evaluation_batch", ["fixres.data.loader.evaluation_batch"]),
        ("from fixres.data.loader import (\n    train_batches,\n    gone,\n)", ["fixres.data.loader.gone"]),
        ("from fixres.train import run_stage", ["fixres.train.run_stage"]),
        ("python -c 'from fixres.errors import UserError; print(1)' > docs", []),
        ('"fixres.inference.server.launch:worker_app" "fixres.cli.main:mein"', ["fixres.cli.main:mein"]),
        ("Not here: pictures (`data.sources`), files (`data.files`).", ["data.files"]),
        ("`data.uri`, `runtime.threads` and `data.url`; other people's `models.py`", ["data.url"]),
        ("`config/recipe.py`, `config/recipes.py`, src/fixres/errors.py, src/fixres/error.py", None),
        (
            "tests/test_architecture.py and tests/test_nothing.py; tests/PACKAGE/test_MODULE.py",
            ["tests/test_nothing.py"],
        ),
        ("`python -m tools.docs`, `python -m tools.docz`", ["-m tools.docz"]),
        ("deploy/fixres.service, fixres.load and fixres.UserError", []),
    ],
)
def test_the_finder_sees_a_wrong_path(text: str, wrong: list[str] | None) -> None:
    expected = ["config/recipes.py", "src/fixres/error.py"] if wrong is None else wrong
    assert list(wrong_paths(text)) == expected


def test_invariants_name_tests_that_hold_them() -> None:
    named = {name for path in SOURCE.rglob("README.md") for name in re.findall(r"`(test_\w+)`", words_of(path))}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert not named - set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))


def test_what_is_said_to_be_gone_is_gone() -> None:
    assert not [name for names in GONE.values() for name in names if is_there(name)]


def test_every_public_name_has_its_home() -> None:
    for name, home in fixres._HOMES.items():
        assert is_there(f"{home}.{name}")
