"""The house stands: files stay readable, and each fact has one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fixres"


FILES = sorted(SOURCE.rglob("*.py"))


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


def test_one_place_knows_the_resize_rule() -> None:
    pattern = re.compile(r"256 ?/ ?224|1\.14\b|[*/] ?0\.875")
    allowed = {"resolution.py"}
    for path in FILES:
        code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        assert path.name in allowed or not pattern.search(code), f"{path.name} has its own resize constant"


def test_one_place_switches_networks_to_training() -> None:
    for path in FILES:
        if path.name in ("freeze.py", "demo.py"):
            continue
        assert not re.search(r"\.train\((True)?\)", path.read_text()), f"{path.name} switches a network to training"


def test_constraints_name_versions_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.match(r"[a-z0-9._-]+==\S+( ; .*)?$", line, re.IGNORECASE) for line in lines if line)


def test_the_package_imports_without_torch() -> None:
    code = (
        "import sys, fixres, fixres.cli.main, fixres.config.loading, fixres.cli.parse; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    import fixres

    for name in fixres.__all__:
        assert getattr(fixres, name) is not None
