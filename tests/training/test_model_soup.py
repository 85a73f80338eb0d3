"""Soups: the mean is a mean, a greedy soup drops what harms, statistics are exact, the folder says of what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import update_bn

from fixres.cli.main import main
from fixres.config.recipe import Data, Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.data.loader import evaluation_batches
from fixres.data.transforms import normalise
from fixres.errors import UserError
from fixres.evaluation.evaluate import Reading
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.model_soup import AverageRequest, average, mean_state, recalibrate

Make = Callable[..., Recipe]
numbers = st.floats(-1e3, 1e3, width=32)


@pytest.fixture
def runs(trained_run: Path, other_seed_run: Path) -> list[Path]:
    """Two runs of one recipe with different seeds."""
    return [trained_run, other_seed_run]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_mean_is_that_of_float64_and_knows_no_order(rows: list[list[float]]) -> None:
    states = [{"w": torch.tensor(row), "bn.num_batches_tracked": torch.tensor(i)} for i, row in enumerate(rows)]
    found = mean_state(states)
    assert torch.equal(found["w"], torch.tensor(rows, dtype=torch.float64).mean(0).float())
    assert torch.equal(found["w"], mean_state(states[::-1])["w"])
    assert int(found["bn.num_batches_tracked"]) == sum(range(len(rows))) // len(rows)


def test_tables_of_whole_numbers_must_agree() -> None:
    table = {"index": torch.tensor([0, 1])}
    assert torch.equal(mean_state([table, table])["index"], table["index"])
    with pytest.raises(UserError, match="'index' differ"):
        mean_state([table, {"index": torch.tensor([1, 0])}])


def test_a_uniform_soup_is_a_timm_folder_with_its_origin(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soup"
    assert main(["average", *map(str, runs), "--out", str(out), "--workers", "0"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert "% on val" in told.err
    assert "result on test" in told.err
    mean, one, two = weights(out), *(weights(run / "model") for run in runs)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (one[name].double() + two[name].double()).div(2).float())
    config = json.loads((out / "config.json").read_text())
    made = config["fixres"]["average"]
    assert made["kind"] == "uniform"
    for entry, run in zip(made["ingredients"], runs, strict=True):
        assert entry["source"] == str(run)
        assert entry["used"]
        assert entry["sha256"] == hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert config["fixres"]["results"][0]["split"] == "test"
    assert "mean (uniform) of the weights of 2 networks" in (out / "README.md").read_text()
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert torch.equal(model.state_dict()["fc.weight"], mean["fc.weight"])


def spoilt(run: Path, out: Path) -> Path:
    """Copy the product of a run with a head that names the wrong classes."""
    out.mkdir()
    state = weights(run / "model")
    state["fc.weight"], state["fc.bias"] = -100 * state["fc.weight"], -100 * state["fc.bias"]
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text((run / "model" / "config.json").read_text())
    return out


def test_a_greedy_soup_leaves_out_what_harms(runs: list[Path], tmp_path: Path) -> None:
    bad = spoilt(runs[0], tmp_path / "bad")
    request = AverageRequest(sources=(str(bad), str(runs[0])), out=tmp_path / "soup", greedy=True, workers=0)
    found = average(request)
    assert found.alone[str(bad)] < found.alone[str(runs[0])]
    assert found.used == [str(runs[0])]
    assert found.soup_top1 == found.alone[str(runs[0])]
    kept, own = weights(tmp_path / "soup"), weights(runs[0] / "model")
    assert all(torch.equal(tensor, own[name]) for name, tensor in kept.items())
    made = json.loads((tmp_path / "soup" / "config.json").read_text())["fixres"]["average"]
    assert [entry["used"] for entry in made["ingredients"]] == [False, True]


def test_a_greedy_soup_takes_what_loses_nothing(runs: list[Path], tmp_path: Path) -> None:
    # An equal network: the soup stays where it is, and equal is good enough.
    twin = tmp_path / "twin"
    twin.mkdir()
    for name in ("config.json", "model.safetensors"):
        (twin / name).write_bytes((runs[0] / "model" / name).read_bytes())
    found = average(AverageRequest(sources=(str(runs[0]), str(twin)), out=tmp_path / "soup", greedy=True, workers=0))
    assert len(found.used) == 2


def calibrated(batch_size: int) -> tuple[nn.Module, nn.Module, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = build_model("test_resnet", 3).eval()
    split = open_collection(Data(uri="synthetic:classes=3,images=16,size=32")).split("train")
    p = Preprocess(32)
    batches = [normalise(views[0], p.mean, p.std) for views, _, _ in evaluation_batches(split, [p], batch_size)]
    runtime = Runtime(RuntimeSettings(device="cpu"))
    other = build_model("test_resnet", 3)
    other.load_state_dict(model.state_dict())
    assert recalibrate(model, split, p, runtime, Reading(batch_size)) > 0
    assert not any(module.training for module in model.modules())
    return model, other, torch.cat(batches), batches


def test_recalibrated_statistics_are_those_of_the_whole_split() -> None:
    model, other, everything, batches = calibrated(12)
    assert len(batches) > 1
    inputs = other.get_submodule("conv1")(everything) if hasattr(other, "conv1") else everything
    first = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    if isinstance(other.get_submodule("conv1"), nn.Sequential):
        inputs = other.get_submodule("conv1")[0](everything)
    torch.testing.assert_close(first.running_mean, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, inputs.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert int(first.num_batches_tracked) == len(batches)  # type: ignore[arg-type]


def test_one_batch_gives_what_torch_gives() -> None:
    model, other, everything, _ = calibrated(1000)
    update_bn([everything], other)
    expected = other.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_recalibration_changes_statistics_and_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    sources = tuple(map(str, runs))
    average(AverageRequest(sources=sources, out=tmp_path / "plain", workers=0))
    average(AverageRequest(sources=sources, out=tmp_path / "fresh", recalibrate=True, workers=0))
    plain, fresh = weights(tmp_path / "plain"), weights(tmp_path / "fresh")
    changed = {name for name in plain if not torch.equal(plain[name], fresh[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


def changed_config(run: Path, out: Path, change: Callable[[dict], None]) -> str:  # type: ignore[type-arg]
    out.mkdir()
    config = json.loads((run / "model" / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config))
    (out / "model.safetensors").write_bytes((run / "model" / "model.safetensors").read_bytes())
    return str(out)


def test_only_networks_of_one_kind_have_a_mean(runs: list[Path], tmp_path: Path) -> None:
    def rename(config: dict) -> None:  # type: ignore[type-arg]
        for place in (config, config["pretrained_cfg"]):
            place["label_names"] = ["x", "y", "z"]

    def grow(config: dict) -> None:  # type: ignore[type-arg]
        config["pretrained_cfg"]["test_input_size"] = [3, 64, 64]

    one = str(runs[0])
    other_names = changed_config(runs[0], tmp_path / "names", rename)
    other_size = changed_config(runs[0], tmp_path / "size", grow)
    cases = [
        ((one, other_names), "different classes"),
        ((one, other_size), "different test sizes: 32 and 64"),
        ((one,), "at least two"),
        ((one, one), "named twice"),
        ((one, "timm:resnet18"), "fixres import timm:resnet18"),
    ]
    for sources, message in cases:
        with pytest.raises(UserError, match=message):
            average(AverageRequest(sources=sources, out=tmp_path / "soup"))
    with pytest.raises(UserError, match="is there already"):
        average(AverageRequest(sources=(one, str(runs[1])), out=runs[0]))
    assert not (tmp_path / "soup").exists()


def test_bare_files_of_different_architectures_are_refused(tmp_path: Path) -> None:
    files = []
    for name in ("test_resnet", "test_efficientnet"):
        files.append(str(tmp_path / f"{name}.pth"))
        torch.save(build_model(name, 3).state_dict(), files[-1])
    with pytest.raises(UserError):
        average(AverageRequest(sources=tuple(files), out=tmp_path / "soup", model="test_resnet"))


def test_files_without_pictures_are_averaged_and_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for file in files:
        torch.save(build_model("test_resnet", 3).state_dict(), file)
    words = [*map(str, files), "--model", "test_resnet", "--out", str(tmp_path / "soup")]
    assert main(["average", *words]) == 0
    assert "not measured" in capsys.readouterr().err
    assert json.loads((tmp_path / "soup" / "config.json").read_text())["fixres"]["results"] == []
    assert main(["average", *words[:-1], str(tmp_path / "greedy"), "--greedy"]) == 2
    assert "--data URI" in capsys.readouterr().err
