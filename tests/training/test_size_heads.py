"""A head for every size: one product that equals as many fixes, wherever a size is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import fixres
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import Stopped, UserError
from fixres.io.tensors import write_weights
from fixres.runtime.run_folder import read_events
from fixres.training import size_heads
from fixres.training.cached_solver import logistic_head, solve
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe
from tests.conftest import tiny_recipe

SIZES = (32, 40, 64)
"""Beside the size of the fix, 48."""

pytestmark = pytest.mark.usefixtures("few_decays")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run trained at 32 px and fixed at 48, with heads for 32, 40 and 64."""
    run = tmp_path_factory.mktemp("heads") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic_head, "DECAYS", (1.0, 0.1))
        run_recipe(tiny_recipe(fix={"size": 48, "head_sizes": SIZES}), run)
    return run


@pytest.fixture(scope="module")
def alone(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return a run for each size that was fixed at it alone, from the same trained network."""
    runs = {}
    for size in (*SIZES, 48):
        runs[size] = tmp_path_factory.mktemp("alone") / str(size)
        recipe = fix_recipe(load(str(heads), "before_fix"), None, {"size": size}, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logistic_head, "DECAYS", (1.0, 0.1))
            run_recipe(recipe, runs[size], split_from=heads / "split.json")
    return runs


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_product_equals_as_many_fixes_bit_for_bit(heads: Path, alone: dict[int, Path]) -> None:
    product = load(str(heads))
    for size, run in alone.items():
        assert same(product.at(size).model, load(str(run)).model)
    # From one size to another, and back.
    assert same(product.at(64).at(40).model, load(str(alone[40])).model)
    assert same(product.at(64).at(48).model, load(str(alone[48])).model)
    assert not same(product.at(64).model, product.at(48).model)


def test_every_size_is_listed_with_what_it_reached(heads: Path, alone: dict[int, Path]) -> None:
    config = json.loads((heads / "model" / "config.json").read_text())["fixres"]
    assert config["size"] == config["test_size"] == 48
    assert list(config["sizes"]) == ["32", "40", "64"]
    (event,) = [event for event in read_events(heads) if event["event"] == "comparison"]
    labels = [row["label"] for row in event["rows"]]
    # The head at the train size is the control, too.
    further = ["fixed at the train size", "fixed at 40 px", "fixed at 64 px"]
    assert labels == ["train size", "larger size only", *further, "fixed"]
    for size in SIZES:
        entry = config["sizes"][str(size)]
        assert entry["file"] == f"sizes/0{size}.safetensors"
        (row,) = [row for row in event["rows"] if row["size"] == size and row["label"].startswith("fixed")]
        (other,) = [row for row in read_events(alone[size]) if row["event"] == "comparison"]
        for key in ("top1", "loss", "gmacs"):
            assert entry[key] == row[key] == other["rows"][-1][key]


def test_every_command_takes_the_size_s_own_head(
    heads: Path, alone: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluated(checkpoint: Path, *words: str) -> tuple[dict[str, Any], str]:
        out = tmp_path / "e.json"
        assert main(["eval", str(checkpoint), *words, "--workers", "0", "--json", str(out)]) == 0
        return json.loads(out.read_text()), capsys.readouterr().err

    answer, said = evaluated(heads, "--sizes", "40,64")
    assert "is not the product's test size" not in said
    for result in answer["results"]:
        (other,) = evaluated(alone[result["size"]])[0]["results"]
        assert [result[key] for key in ("top1", "loss")] == [other[key] for key in ("top1", "loss")]
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(picture)
    assert fixres.predict(heads, picture, size=64) == fixres.predict(alone[64], picture)
    assert main(["predict", str(heads), str(picture), "--size", "64"]) == 0
    assert "differs from the product's test size" not in capsys.readouterr().err

    found, said = evaluated(heads, "--cascade", "40,64")
    assert found["cascade"]["weights"] == ["raw", "raw"]
    assert "40 px and 64 px with a head of their own each" in said
    for result in found["results"]:
        assert result["loss"] == evaluated(alone[result["size"]])[0]["results"][0]["loss"]


def test_the_server_answers_each_size_with_its_own(heads: Path, alone: dict[int, Path]) -> None:
    pytest.importorskip("fastapi")
    from tests.support.serving import client_of, encoded, expected, named, picture

    with client_of(heads) as client:
        for size in (40, 64, 48):
            answer = client.post("/v1/predict", content=encoded(picture(), "PNG"), params={"size": size}).json()
            assert named(answer) == pytest.approx(expected(alone[size], picture()), abs=1e-6)


def test_timm_loads_the_folder_and_copies_keep_every_head(heads: Path, alone: dict[int, Path], tmp_path: Path) -> None:
    model = timm.create_model(f"local-dir:{heads / 'model'}", pretrained=True)
    assert same(model, load(str(alone[48])).model)
    assert main(["import", str(heads), "--out", str(tmp_path / "copy")]) == 0
    copy = load(str(tmp_path / "copy"))
    for size, run in alone.items():
        assert same(copy.at(size).model, load(str(run)).model)


def test_a_copy_at_another_size_has_the_head_of_that_size(
    heads: Path, alone: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(heads), "--size", "64", "--out", str(tmp_path / "copy")]) == 0
    copy = load(str(tmp_path / "copy"))
    assert copy.preprocess.size == 64
    assert same(copy.model, load(str(alone[64])).model)
    assert same(copy.at(48).model, load(str(alone[48])).model)
    assert "promises" not in copy.details
    # A new head has nothing to do with those of other sizes.
    assert main(["import", str(heads), "--new-head", "5", "--out", str(tmp_path / "new")]) == 0
    assert not load(str(tmp_path / "new")).heads


def test_a_head_that_came_out_as_before_is_there_like_any_other(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves_it(problem: Any) -> Any:
        found = solve.solve(problem)
        problem.model.load_state_dict(load(str(heads)).model.state_dict())
        return found

    monkeypatch.setattr(size_heads, "solve", leaves_it)
    recipe = fix_recipe(load(str(heads), "before_fix"), None, {"size": 48, "head_sizes": (64,)}, 0)
    run_recipe(recipe, tmp_path / "run", split_from=heads / "split.json")
    product = load(str(tmp_path / "run"))
    assert {*product.heads} == {32, 48, 64}
    assert same(product.at(64).model, product.model)


def test_a_size_whose_file_is_missing_or_foreign_is_told(heads: Path, tmp_path: Path) -> None:
    run = shutil.copytree(heads, tmp_path / "run")
    (run / "model" / "sizes" / "064.safetensors").unlink()
    product = load(str(run))
    assert {*product.heads} == {32, 40, 48}
    assert "sizes/064.safetensors is missing: 64 px has no head of its own" in product.notes
    write_weights(run / "model" / "sizes" / "040.safetensors", {"nonsense": torch.zeros(2)})
    with pytest.raises(UserError, match="of another network: it has no 'nonsense'"):
        load(str(run))


def test_a_copy_without_the_weights_from_before_still_loads_and_has_none_for_the_train_size(
    heads: Path, tmp_path: Path
) -> None:
    recipe = fix_recipe(load(str(heads), "before_fix"), None, {"size": 48, "head_sizes": (64,)}, 0)
    run_recipe(recipe, tmp_path / "run", split_from=heads / "split.json")
    assert main(["import", str(tmp_path / "run"), "--out", str(tmp_path / "copy")]) == 0
    # What was before the fix is no head that was solved.
    assert list(json.loads((tmp_path / "copy" / "config.json").read_text())["fixres"]["sizes"]) == ["64"]
    assert {*load(str(tmp_path / "copy")).heads} == {32, 48, 64}
    (tmp_path / "copy" / "before_fix.safetensors").unlink()
    assert {*load(str(tmp_path / "copy")).heads} == {48, 64}


def test_before_the_fix_there_are_no_heads(heads: Path) -> None:
    before = load(str(heads), "before_fix")
    assert not before.heads
    assert not same(before.at(64).model, load(str(heads)).at(64).model)


def test_a_product_written_again_without_them_has_none(heads: Path, tmp_path: Path) -> None:
    run = shutil.copytree(heads, tmp_path / "run")
    product = load(str(run))
    from fixres.checkpoints.folder_write import save_product
    from fixres.checkpoints.product import Sheet

    sheet = Sheet(product.classes, product.preprocess, 32, "head", "raw", (), {}, {}, {})
    save_product(run / "model", product.model, sheet)
    assert not list((run / "model" / "sizes").glob("*"))
    assert not load(str(run / "model")).heads


def test_an_interruption_anywhere_gives_the_same_product(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = size_heads.solve, []

    def stops(problem: Any) -> Any:
        calls.append(problem)
        if len(calls) == 2:
            raise Stopped
        return whole(problem)

    recipe = tiny_recipe(fix={"size": 48, "head_sizes": SIZES})
    monkeypatch.setattr(size_heads, "solve", stops)
    with pytest.raises(Stopped):
        run_recipe(recipe, tmp_path / "run")
    monkeypatch.setattr(size_heads, "solve", whole)
    run_recipe(recipe, tmp_path / "run", resume=True)
    for path in sorted((heads / "model").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "run" / "model" / path.relative_to(heads / "model")).read_bytes()


def test_a_size_without_a_head_is_refused_by_every_command(
    heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (70, 80)).save(picture)
    out, run = str(tmp_path / "out"), str(heads)
    for words in (
        ["eval", run, "--sizes", "48,56"],
        ["eval", run, "--cascade", "40,56"],
        ["eval", run, "--ensemble-sizes", "48,56"],
        ["predict", run, str(picture), "--size", "56"],
        ["extract", run, "--size", "56", "--out", out],
        ["export", run, "--format", "onnx", "--size", "56", "--out", out],
        ["import", run, "--size", "56", "--out", out],
        ["serve", run, "--sizes", "48,56"],
        ["serve", run, "--degrade-to", "36"],
    ):
        assert main(words) == 2, words
        told = capsys.readouterr().err
        assert "32, 40, 48, 64" in told, words
        assert not list(Path(out).glob("*")), words
    assert main(["eval", run, "--weights", "before_fix", "--sizes", "32,56", "--workers", "0"]) == 0


def test_the_train_size_has_the_head_from_before_the_fix_where_none_was_solved_for_it(
    heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = fix_recipe(load(str(heads), "before_fix"), None, {"size": 48, "head_sizes": (64,)}, 0)
    run_recipe(recipe, tmp_path / "run", split_from=heads / "split.json")
    product = load(str(tmp_path / "run"))
    assert {*product.heads} == {32, 48, 64}
    assert same(product.at(32).model, load(str(tmp_path / "run"), "before_fix").model)
    assert same(product.at(32).at(48).model, product.model)
    assert main(["eval", str(tmp_path / "run"), "--sizes", "32,48", "--workers", "0"]) == 0
    assert "32 px is measured with the weights from before the fix" in capsys.readouterr().err


def test_a_network_with_a_position_grid_keeps_one_for_every_size(tmp_path: Path) -> None:
    sizes = (32, 64)
    recipe = tiny_recipe(model={"name": "test_vit"}, train={"size": 32}, fix={"size": 48, "head_sizes": sizes})
    run_recipe(recipe, tmp_path / "run")
    product = load(str(tmp_path / "run"))
    for size in (*sizes, 48):
        own = fix_recipe(load(str(tmp_path / "run"), "before_fix"), None, {"size": size}, 0)
        run_recipe(own, tmp_path / str(size), split_from=tmp_path / "run" / "split.json")
        assert same(product.at(size).model, load(str(tmp_path / str(size))).model)


def test_the_command_chooses_the_size_that_ships_among_them(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a"
    assert main(["fix", str(trained_run), "--sizes", "32,48,64", "--out", str(run)]) == 0
    product = load(str(run))
    assert {*product.heads} == {32, 48, 64}
    events = read_events(run)
    assert next(event for event in events if event["event"] == "chosen")["size"] == product.preprocess.size
    assert main(["fix", str(trained_run), "--sizes", "auto", "--size", "48", "--out", str(tmp_path / "b")]) == 0
    assert len(load(str(tmp_path / "b")).heads) > 2
    for words, answer in (
        ([], "--sizes A,B,C"),
        (["--sizes", "32,48", "--solver", "sgd"], "this fix is trained by sgd"),
        (["--sizes", "48,100000"], "100000"),
        (["--sizes", "big"], "with commas between them, or auto"),
    ):
        assert main(["fix", str(trained_run), *words, "--out", str(tmp_path / "c")]) == 2
        assert answer in capsys.readouterr().err
        assert not (tmp_path / "c").exists() or not (tmp_path / "c" / "model").exists()
