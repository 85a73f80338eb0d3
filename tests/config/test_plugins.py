"""Modules named by FIXRES_PLUGINS are imported where a command starts or a recipe is checked, in every process."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from fixres.cli.main import main
from fixres.config.loading import load
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.several import run_processes

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
PLUGIN = re.findall(r"```python\n(# mine\.py\n.*?)```", PAGE, re.DOTALL)[0]
"""The example of the documents."""
RECIPE = """
data: {{uri: "synthetic:classes=3,images=48,size=48", workers: {workers}}}
model: {{name: test_resnet}}
train: {{size: 32, epochs: 1, batch_size: 16}}
loss: {{name: brier}}
fix: {{size: 48, epochs: 1, moves: head-bias}}
evaluation: {{batch_size: 16}}
output: {{tracker: none}}
runtime: {{threads: 1}}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with the example, which FIXRES_PLUGINS names."""
    name = re.sub(r"\W", "_", f"mine_{tmp_path.name}")
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FIXRES_PLUGINS", f" {name},")
    return name


def train(recipe: Path, folder: Path) -> None:
    run_recipe(load(recipe), folder)


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0)])
def test_every_process_knows_what_a_plugin_registers(
    mine: str, tmp_path: Path, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(workers=workers))
    assert run_processes(processes, train, recipe, run) == [None] * processes
    # The processes are forked: had it been imported here, they would have had it from here.
    assert mine not in sys.modules
    (plan,) = [event["plan"] for event in read_events(run) if event["event"] == "fix"]
    assert (plan["moves"], plan["tensors"]) == ("head-bias", ["fc.bias"])
    assert json.loads((run / "model" / "config.json").read_text())["fixres"]["moves"] == "head-bias"
    monkeypatch.delenv("FIXRES_PLUGINS")
    with pytest.raises(
        UserError, match=r"(?s)loss.name: expected one of 'ce', 'bce', 'focal', got 'brier'.*'head-bias'"
    ):
        load(recipe)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere", "No module named 'nowhere'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (PLUGIN.replace('"brier"', '"ce"'), "'ce' is registered already"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_the_variable(
    mine: str, tmp_path: Path, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{mine}.py").write_text(text)
    for _ in range(2):
        assert main(["recipes"]) == 2
        assert f"FIXRES_PLUGINS: cannot import '{mine}': {reason}" in capsys.readouterr().err
    with pytest.raises(UserError, match="FIXRES_PLUGINS"):
        load(None)
