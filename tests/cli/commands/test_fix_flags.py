"""`fixres fix` goes on after an interruption, and names its own flags in what it refuses."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.training.cached_solver.feature_cache import Cache
from fixres.training.run import run_recipe
from tests.support.shared_runs import shared_run


def test_an_interrupted_fix_goes_on_with_the_same_command(
    trained_run: Path,
    few_decays: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["fix", str(trained_run), "--size", "48", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0

    def die(*_: Any) -> None:
        raise MemoryError

    module = importlib.import_module("fixres.training.cached_solver.solve")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_search", die)
        assert main([*words, str(tmp_path / "cut")]) == 2
    assert "not enough memory" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "cut")]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    written: list[str] = []
    write = Cache.write

    def note(self: Cache, what: str, chunk: int, tensors: Any) -> None:
        # The control, at the train size, had not begun.
        written.extend([] if "control" in str(self.folder) else [what.partition(".")[0]])
        write(self, what, chunk, tensors)

    monkeypatch.setattr(Cache, "write", note)
    assert main([*words, str(tmp_path / "cut"), "--resume"]) == 0
    assert written == ["solution"]
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()


@pytest.fixture
def vit_run(shared_folder: Path, make_recipe: Callable[..., Recipe]) -> Path:
    """Return a finished run of a network without statistics, one that every test below reads."""
    recipe = make_recipe(model={"name": "test_vit"}, train={"size": 160, "epochs": 1})
    return shared_run(shared_folder, "vit", lambda folder: run_recipe(recipe, folder))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--moves", "stats", "--size", "160"], "use --moves head"),
        (["--solver", "cached", "--moves", "all", "--size", "160"], "use --solver sgd"),
        (["--solver", "sgd", "--epochs", "1", "--batch-size", "4000", "--size", "160"], "--batch-size 4000"),
        (["--solver", "cached", "--epochs", "2", "--size", "160"], "--epochs is for training by sgd"),
        (["--solver", "sgd", "--views", "3", "--size", "160"], "--views is for the cached solver"),
    ],
)
def test_fix_names_its_own_flags(
    vit_run: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["fix", str(vit_run), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_fix_whose_pictures_moved_is_told_its_own_flag(
    make_recipe: Callable[..., Recipe], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, train = {"uri": f"folder:{photos}", "holdout": 0}, {"size": 32, "epochs": 1, "batch_size": 8}
    run_recipe(make_recipe(data=data, train=train), tmp_path / "r")
    sgd = ("--size", "48", "--solver", "sgd", "--epochs", "1", "--batch-size", "8")
    words = ["fix", str(tmp_path / "r"), *sgd, "--out", str(tmp_path / "f")]
    assert main(words) == 0
    (tmp_path / "f" / "status.json").unlink()
    moved = photos.rename(tmp_path / "moved")
    assert main([*words, "--resume"]) == 2
    assert "in another place now, name it: --data folder:DIR" in capsys.readouterr().err
    assert main([*words, "--resume", "--data", str(moved)]) == 0
    assert f"note: the data moved from folder:{photos} to folder:{moved}" in capsys.readouterr().err
