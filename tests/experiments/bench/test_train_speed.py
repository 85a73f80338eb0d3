"""`fixres bench train`: every side trains the same, ratios are ours over theirs, and the parts of a step add up."""

from __future__ import annotations

import json

import pytest
import torch

from fixres.cli.main import main
from fixres.experiments.bench.harness import Turn
from fixres.experiments.bench.train_speed import Parts, _answer
from fixres.experiments.questions import TrainBench


def test_the_command_writes_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "test_resnet", "--size", "32", "--batch-size", "2", "--repeat", "1", "--steps", "2"]
    backward = torch.autograd.backward
    assert main(["bench", "train", *words, "--json", "-"]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    ours = found["sides"]["ours"]["images_per_second"]
    assert set(found["ratio"]) == {"timm", "torch"}
    for name, ratio in found["ratio"].items():
        assert ratio == pytest.approx(ours / found["sides"][name]["images_per_second"], rel=0.01)
    ms = found["step_milliseconds"]
    assert 0 < ms["model"] < ms["step"]
    assert ms["data"] > 0
    assert 0 < found["host_ratio"] < 1
    assert "forward, backward and optimizer" in out.err
    assert torch.autograd.backward is backward


def test_ratios_are_taken_within_a_repeat_and_host_is_what_the_model_leaves() -> None:
    parts = Parts()
    for model in (0.9, 0.8, 0.95):
        parts.running = model
        parts.end_step(data=0.5, update=1.0)
    ours, timm = ([Turn(rate, 2 * rate) for rate in rates] for rates in ((100, 10, 60), (50, 5, 20)))
    found = _answer(TrainBench(), {"ours": ours, "timm": timm}, parts)
    side = found["sides"]["timm"]
    assert found["ratio"] == {"timm": 2.0}
    assert (side["ratio_lowest"], side["ratio_highest"]) == (2.0, 3.0)
    assert side["cpu_ratio"] == 2.0
    assert "cpu_ratio" not in _answer(TrainBench(workers=1), {"ours": ours, "timm": timm}, parts)["sides"]["timm"]
    assert found["host_ratio"] == pytest.approx(0.1)
    assert found["step_milliseconds"] == {"step": 1500.0, "data": 500.0, "model": 900.0, "host": 100.0}


def test_only_what_is_there_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err
    assert main(["bench", "train", "--model", "resnet81"]) == 2
    assert "resnet81" in capsys.readouterr().err
