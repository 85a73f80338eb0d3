"""Other projects' names fit timm's networks, and their momentum reaches the parameter it was made for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.resnet import Bottleneck, ResNet

from fixres.checkpoints.foreign.fit import fit, named_optimizer_state
from fixres.checkpoints.foreign.layouts import open_checkpoint
from fixres.errors import UserError
from fixres.models.build import build_model, load_strict
from tests.support.networks import skeleton

State = dict[str, Tensor]


def with_cadene_head(model: nn.Module, own: str) -> State:
    return {n.replace(f"{own}.", "last_linear.", 1): t for n, t in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "own"), [("inception_resnet_v2", "classif"), ("legacy_seresnet18", "last_linear"), ("test_resnet", "fc")]
)
def test_cadenes_classifier_gets_the_networks_name(name: str, own: str) -> None:
    model = skeleton(name)
    state, note = fit(with_cadene_head(model, own), model, "FILE")
    assert list(state) == list(model.state_dict())
    assert note == ("" if own == "last_linear" else f"renamed the classifier from last_linear to {own}")


@pytest.mark.parametrize("prefix", ["net.", "learner.trunk.", "student.module.", "encoder.0."])
@pytest.mark.parametrize("others", [(), ("critic.0.weight", "temperature")])
def test_whatever_stands_in_front_of_the_names_is_removed(prefix: str, others: tuple[str, ...]) -> None:
    model = build_model("test_resnet", 3)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    state, note = fit({prefix + name: t for name, t in own.items()} | dict.fromkeys(others, torch.ones(1)), model, "F")
    assert state == own
    assert note == f"removed the prefix {prefix}" + (
        "; left out critic, temperature, which are no part of this network" if others else ""
    )


def test_several_networks_that_fit_are_not_chosen_from() -> None:
    model = build_model("test_resnet", 3)
    both = {f"{prefix}{name}": t for prefix in ("student.", "teacher.") for name, t in model.state_dict().items()}
    with pytest.raises(UserError, match=r"holds 2 networks that fit: student\.\*, teacher\.\*\n  save one of them"):
        fit(both, model, "FILE")
    other = {f"teacher.{name}": t for name, t in build_model("resnet18", 3).state_dict().items()}
    mine = {f"student.{name}": t for name, t in model.state_dict().items()}
    state, note = fit(mine | other, model, "FILE")
    assert list(state) == list(model.state_dict())
    assert note == "removed the prefix student.; left out teacher, which are no part of this network"


def test_nothing_else_is_renamed() -> None:
    model = build_model("test_resnet", 3)
    state = {f"x.{name}": tensor for name, tensor in model.state_dict().items() if name != "conv1.0.weight"}
    assert fit(state, model, "FILE") == (state, "")
    both = {**model.state_dict(), "last_linear.weight": torch.zeros(3, 4)}
    assert fit(both, model, "FILE")[0].keys() == both.keys()


def reference(downsample_first: bool) -> nn.Module:
    """Return a small ResNeXt; optionally its first blocks register the shortcut before the convolutions."""
    torch.manual_seed(0)
    model = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=5, groups=4, width_per_group=4)
    if downsample_first:
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            block = stage[0]._modules
            block["downsample"] = block.pop("downsample")
            block.update({name: block.pop(name) for name in list(block) if name != "downsample"})
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 3])
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def saved(path: Path, model: nn.Module, state: dict[str, Any]) -> Path:
    """Write what ResNeXt-PyTorch writes after an epoch."""
    average = AveragedModel(model)
    content = {
        "epoch": 1,
        "best_acc1": 20.0,
        "state_dict": model.state_dict(),
        "ema_state_dict": average.state_dict(),
        "optimizer": state,
        "scheduler": {"T_0": 1},
    }
    torch.save(content, path)
    return path


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_momentum_goes_by_name_and_the_next_step_is_theirs(tmp_path: Path) -> None:
    source = reference(downsample_first=True)
    ours = reference(downsample_first=False)
    names = [name for name, _ in ours.named_parameters()]
    assert names != [name for name, _ in source.named_parameters()]
    assert set(names) == set(dict(source.named_parameters()))
    their_optimizer = optimizer_of(source)
    step(source, their_optimizer, 1)
    found = open_checkpoint(saved(tmp_path / "epoch_1.pth.tar", source, their_optimizer.state_dict()))
    state = found.weights["raw"]
    named = named_optimizer_state(found, shapes_of(ours))
    step(source, their_optimizer, 2)

    ours.load_state_dict(state)
    optimizer = optimizer_of(ours)
    for name, parameter in ours.named_parameters():
        optimizer.state[parameter]["momentum_buffer"] = named[f"{name}.momentum_buffer"].clone()
    step(ours, optimizer, 2)
    expected = source.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())

    # By position a buffer lands on another parameter, mostly of another shape.
    assert found.optimizer is not None
    by_position = {name: found.optimizer["state"][i]["momentum_buffer"] for i, name in enumerate(names)}
    moved = [n for n in names if not torch.equal(by_position[n], named[f"{n}.momentum_buffer"])]
    assert {n.split(".")[0] for n in moved} == {"layer1", "layer2", "layer3", "layer4"}
    positional = reference(downsample_first=False)
    positional.load_state_dict(state)
    optimizer = optimizer_of(positional)
    optimizer.load_state_dict(found.optimizer)
    with pytest.raises(RuntimeError):
        step(positional, optimizer, 2)


def test_adam_and_parameters_without_state_keep_what_they_have(tmp_path: Path) -> None:
    model = reference(downsample_first=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    step(model, optimizer, 1)
    found = open_checkpoint(saved(tmp_path / "w.pt", model, optimizer.state_dict()))
    named = named_optimizer_state(found, shapes_of(model))
    assert set(named) == {f"fc.{p}.{e}" for p in ("weight", "bias") for e in ("exp_avg", "exp_avg_sq", "step")}
    assert torch.equal(named["fc.bias.exp_avg"], optimizer.state[model.fc.bias]["exp_avg"])
    assert named["fc.bias.step"] == 1


def altered(optimizer: torch.optim.Optimizer, fault: str) -> dict[str, Any]:
    content = optimizer.state_dict()
    groups, states = content["param_groups"], content["state"]
    numbers = groups[0]["params"]
    if fault == "interleaved":
        content["param_groups"] = [{**groups[0], "params": numbers[::2]}, {**groups[0], "params": numbers[1::2]}]
    elif fault == "partial groups":
        content["param_groups"] = [{**groups[0], "params": numbers[:3]}, {**groups[0], "params": numbers[3:]}]
        del states[4]
    elif fault == "count":
        groups[0]["params"] = numbers[:-1]
    elif fault == "shape":
        states[0], states[1] = states[1], states[0]
    elif fault == "entries":
        states[0]["square_avg"] = states[0].pop("momentum_buffer")
    elif fault == "no tensor":
        states[0]["momentum_buffer"] = [1.0]
    elif fault == "beyond":
        states[len(numbers)] = states[0]
    elif fault == "no momentum":
        content["state"] = {i: {"momentum_buffer": None} for i in numbers}
    elif fault == "form":
        return {"lr": 0.1}
    return content


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("interleaved", "not numbered in the order"),
        ("partial groups", "it has 2 parameter groups and state for 61 of 62"),
        ("count", "made for 61 parameters, the network has 62"),
        ("shape", r"the momentum_buffer of 'conv1\.weight' is \[64\], the parameter \[64, 3, 7, 7\]"),
        ("entries", "'conv1.weight' has square_avg; known are"),
        ("no tensor", "is list, the parameter"),
        ("beyond", "state for a parameter '62'"),
        ("no momentum", "momentum for no parameter"),
        ("form", r"not of PyTorch's form \(it holds: lr\)"),
    ],
)
def test_a_state_that_cannot_be_placed_for_certain_is_refused(fault: str, says: str, tmp_path: Path) -> None:
    model = reference(downsample_first=True)
    optimizer = optimizer_of(model)
    step(model, optimizer, 1)
    found = open_checkpoint(saved(tmp_path / "w.pt", model, altered(optimizer, fault)))
    with pytest.raises(UserError, match=says):
        named_optimizer_state(found, shapes_of(model))


def test_contiguous_groups_are_one_order(tmp_path: Path) -> None:
    model = reference(downsample_first=True)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD([{"params": parameters[:-2]}, {"params": parameters[-2:], "lr": 1.0}], 0.1, 0.9)
    step(model, optimizer, 1)
    found = open_checkpoint(saved(tmp_path / "w.pt", model, optimizer.state_dict()))
    named = named_optimizer_state(found, shapes_of(model))
    for name, parameter in model.named_parameters():
        assert torch.equal(named[f"{name}.momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])


def test_groups_by_decay_are_not_taken_for_the_networks_order(tmp_path: Path) -> None:
    model = reference(downsample_first=True)
    wide = [p for p in model.parameters() if p.dim() > 1]
    thin = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": wide}, {"params": thin, "weight_decay": 0.0}], 0.1, 0.9)
    step(model, optimizer, 1)
    found = open_checkpoint(saved(tmp_path / "w.pt", model, optimizer.state_dict()))
    with pytest.raises(UserError, match="the momentum_buffer of"):
        named_optimizer_state(found, shapes_of(model))


def test_other_weights_than_the_optimizers_are_refused(tmp_path: Path) -> None:
    model = reference(downsample_first=True)
    optimizer = optimizer_of(model)
    step(model, optimizer, 1)
    shapes = shapes_of(model)
    renamed = {name.replace("fc.bias", "head.bias"): shape for name, shape in shapes.items()}
    found = open_checkpoint(saved(tmp_path / "w.pt", model, optimizer.state_dict()))
    with pytest.raises(UserError, match=r"only in the file: fc\.bias; only in the network: head\.bias"):
        named_optimizer_state(found, renamed)
    with pytest.raises(UserError, match="keeps no order of its tensors"):
        named_optimizer_state(dataclasses.replace(found, ordered=False), shapes)
    torch.save({"ema_state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "ema.pt")
    with pytest.raises(UserError, match="the raw weights, whose order it follows, are not in the file"):
        named_optimizer_state(open_checkpoint(tmp_path / "ema.pt"), shapes)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="holds no optimizer state"):
        named_optimizer_state(open_checkpoint(tmp_path / "w.safetensors"), shapes)


def test_a_whole_real_layout_loads_strictly(tmp_path: Path) -> None:
    source = timm.create_model("resnet18", num_classes=6)
    torch.save({"model": {f"module.{n}": t for n, t in source.state_dict().items()}}, tmp_path / "w.pth")
    state = open_checkpoint(tmp_path / "w.pth").weights["raw"]
    model = build_model("resnet18", 6)
    load_strict(model, fit(state, model, "FILE")[0], "FILE")
    assert torch.equal(model.fc.weight, source.fc.weight)
