from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.errors import UserError
from fixres.models.build import build_model
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe


def test_one_process_can_run_in_one_precision_after_another() -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        runtime = Runtime(RuntimeSettings(device="cpu", precision=precision, threads=1))  # type: ignore[arg-type]
        model = runtime.place(build_model("test_resnet", 2)).eval()
        with runtime.autocast():
            assert model(runtime.images(torch.zeros(1, 3, 32, 32))).dtype is dtype


def test_auto_is_full_precision_on_a_cpu() -> None:
    assert Runtime(RuntimeSettings(device="cpu", threads=1)).precision == "fp32"


@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_and_pictures_are_laid_out_alike(channels_last: bool) -> None:
    runtime = Runtime(RuntimeSettings(device="cpu", channels_last=channels_last, threads=1))
    model = runtime.place(build_model("test_resnet", 2))
    images = runtime.images(torch.zeros(2, 3, 8, 8))
    weight = model.get_submodule("layer1.0.conv1").weight
    for tensor in (images, weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_a_device_that_is_not_there_lists_those_that_are() -> None:
    # No machine has all three.
    absent = "mps" if torch.cuda.is_available() or torch.xpu.is_available() else "cuda"
    with pytest.raises(UserError, match=rf"runtime\.device {absent} is not available here\n  allowed: auto, cpu"):
        Runtime(RuntimeSettings(device=absent))  # type: ignore[arg-type]


def test_half_precision_needs_an_accelerator() -> None:
    with pytest.raises(UserError, match="fp16 needs an accelerator"):
        Runtime(RuntimeSettings(device="cpu", precision="fp16"))


def test_deterministic_refuses_what_has_no_deterministic_kernel() -> None:
    try:
        Runtime(RuntimeSettings(device="cpu", deterministic=True, threads=1))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        Runtime(RuntimeSettings(device="cpu", threads=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_bf16_and_adamw_with_cutmix_train(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(
        runtime={"precision": "bf16"},
        optim={"name": "adamw", "lr": 1e-3, "clip_norm": 1.0},
        augment={"cutmix": 1.0, "label_smoothing": 0.1},
    )
    run_recipe(recipe, tmp_path / "r")
    losses = [e["loss"] for e in read_events(tmp_path / "r") if e["event"] == "train"]
    assert losses[-1] < losses[0] * 1.2
    assert "bf16" in next(e for e in read_events(tmp_path / "r") if e["event"] == "start")["device"]
