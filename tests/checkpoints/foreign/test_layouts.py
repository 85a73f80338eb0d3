"""Every layout a training program writes is told apart, and what could mean two things is refused."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fixres.checkpoints.foreign import layouts
from fixres.checkpoints.foreign.layouts import Found, choose, open_checkpoint, untrained_statistics
from fixres.errors import UserError
from fixres.training.state import TrainState, save_state

State = dict[str, Tensor]


def network(seed: int) -> nn.Module:
    """Return a small network in which every tensor is random, statistics included."""
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=5)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model


RAW: State = network(1).state_dict()
EMA: State = network(2).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def opened(content: Any, tmp_path: Path, **options: Any) -> Found:
    path = tmp_path / "file.pth.tar"
    torch.save(content, path)
    return open_checkpoint(path, **options)


def same(ours: State, theirs: State) -> bool:
    """Return whether names, their order and every value are equal."""
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def averaged(state: State) -> State:
    return {"n_averaged": torch.tensor(7), **prefixed(state, "module.")}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}

CASES: dict[str, tuple[Any, str, tuple[str, ...], str]] = {
    # name: (content, layout, labels, words of the description)
    "flat": (RAW, "flat", ("raw",), "a flat dictionary"),
    "DDP": (prefixed(RAW, "module."), "flat", ("raw",), "removed the prefix module. (DataParallel)"),
    "compiled": (prefixed(RAW, "_orig_mod."), "flat", ("raw",), "removed the prefix _orig_mod. (torch.compile)"),
    "both": (prefixed(RAW, "module._orig_mod."), "flat", ("raw",), "module. (DataParallel), _orig_mod."),
    "both ways": (prefixed(RAW, "_orig_mod.module."), "flat", ("raw",), "_orig_mod. (torch.compile), module."),
    "backbone": (prefixed(RAW, "backbone."), "flat", ("raw",), "backbone."),
    "network": ({"net": prefixed(RAW, "network.")}, "net", ("raw",), "network."),
    "averaged alone": (averaged(EMA), "flat", ("ema",), "averaged weights"),
    "FixRes": (
        {
            "epoch": 119,
            "accuracy": 0.77,
            "model": prefixed(RAW, "module."),
            "optimizer": OPTIMIZER,
            "lr_scheduler": {"last_epoch": 119},
        },
        "fixres-paper",
        ("raw",),
        "FixRes authors' code (epoch 119)",
    ),
    "released FixRes": ({"model": prefixed(RAW, "module.")}, "model", ("raw",), "DataParallel"),
    "torchvision training": (
        {
            "model": RAW,
            "model_ema": averaged(EMA),
            "optimizer": OPTIMIZER,
            "lr_scheduler": {},
            "epoch": 4,
            "scaler": {"scale": 1.0},
        },
        "torchvision",
        ("raw", "ema"),
        "torchvision's layout (epoch 4)",
    ),
    "state_dict": ({"state_dict": RAW}, "state_dict", ("raw",), "state_dict"),
    "pytorch examples": (
        {"epoch": 3, "arch": "resnet18", "state_dict": prefixed(RAW, "module."), "best_acc1": torch.tensor(71.5)},
        "state_dict",
        ("raw",),
        "epoch 3",
    ),
    "model_state_dict": (
        {"model_state_dict": RAW, "optimizer_state_dict": OPTIMIZER, "epoch": 9},
        "model_state_dict",
        ("raw",),
        "model_state_dict",
    ),
    "weights": ({"weights": RAW}, "weights", ("raw",), "weights"),
    "ResNeXt-PyTorch": (
        {
            "epoch": 3,
            "best_acc1": 61.25,
            "state_dict": RAW,
            "ema_state_dict": averaged(EMA),
            "optimizer": OPTIMIZER,
            "scheduler": {"T_0": 1, "T_cur": 3},
        },
        "resnext-pytorch",
        ("raw", "ema"),
        "a ResNeXt-PyTorch training checkpoint (epoch 3): state_dict, ema_state_dict",
    ),
    "timm": (
        {"epoch": 8, "arch": "test_resnet", "state_dict": RAW, "state_dict_ema": EMA, "version": 2, "metric": 80.5},
        "timm",
        ("raw", "ema"),
        "a timm training checkpoint (epoch 8)",
    ),
    "timm, average only": ({"state_dict_ema": EMA, "epoch": 8}, "timm", ("ema",), "timm"),
    "lightning": (
        {
            "epoch": 2,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": prefixed(RAW, "model."),
            "optimizer_states": [OPTIMIZER],
        },
        "lightning",
        ("raw",),
        "a Lightning checkpoint (epoch 2)",
    ),
    "settings under model": ({"model": {"name": "x", "depth": 3}, "state_dict": RAW}, "state_dict", ("raw",), ""),
    "no average yet": ({"state_dict": RAW, "ema_state_dict": None}, "state_dict", ("raw",), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_of_every_layout_is_found(name: str, tmp_path: Path) -> None:
    content, layout, labels, words = CASES[name]
    found = opened(content, tmp_path)
    assert (found.layout, tuple(found.weights)) == (layout, labels)
    assert words in found.description
    for label, expected in (("raw", RAW), ("ema", EMA)):
        if label in labels:
            assert choose(found, label)[0] == label
            assert same(choose(found, label)[1], expected)
        else:
            with pytest.raises(
                UserError, match=rf"no '{label}' weights; it holds {labels[0]}\n  --weights {labels[0]}"
            ):
                choose(found, label)
    assert choose(found, None)[0] == labels[0]
    assert found.ordered
    assert ("n_averaged" in found.dropped) is ("n_averaged" in str(content))
    assert (found.optimizer is not None) is ("momentum_buffer" in str(content))


@pytest.mark.parametrize(
    ("name", "epoch", "architecture"),
    [
        ("FixRes", "(epoch 119)", ""),
        ("pytorch examples", "(epoch 3)", "resnet18"),
        ("ResNeXt-PyTorch", "(epoch 3)", ""),
        ("timm", "(epoch 8)", "test_resnet"),
        ("flat", "", ""),
    ],
)
def test_what_the_file_says_of_itself_is_kept(name: str, epoch: str, architecture: str, tmp_path: Path) -> None:
    found = opened(CASES[name][0], tmp_path)
    assert epoch in found.description
    assert found.architecture == architecture


def test_safetensors_says_that_it_keeps_no_order(tmp_path: Path) -> None:
    save_file(prefixed(RAW, "module."), tmp_path / "w.safetensors")
    found = open_checkpoint(tmp_path / "w.safetensors")
    assert (found.layout, found.ordered) == ("safetensors", False)
    assert {n: t.tolist() for n, t in found.weights["raw"].items()} == {n: t.tolist() for n, t in RAW.items()}


def test_a_legacy_file_is_read_the_same(tmp_path: Path) -> None:
    torch.save(CASES["ResNeXt-PyTorch"][0], tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    found = open_checkpoint(tmp_path / "w.pth")
    assert same(found.weights["raw"], RAW)
    assert same(found.weights["ema"], EMA)


def test_own_training_state_has_both_weights_and_its_classes(tmp_path: Path) -> None:
    model, average = network(1), argparse.Namespace(module=network(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    best = {"fc.weight": torch.zeros(2)}
    for kept in (None, average):
        state = TrainState(model, optimizer, average=kept, step=12, best_weights=best)  # type: ignore[arg-type]
        save_state(state, tmp_path, extra={"classes": ["cat", "dog"]})
        found = open_checkpoint(tmp_path / "checkpoints" / "last.pt")
        assert found.layout == "fixres"
        assert "stage 0, step 12" in found.description
        assert found.class_names == ("cat", "dog")
        assert found.num_classes == 2
        assert "best_weights" in found.dropped
        assert same(found.weights["raw"], RAW)
        assert ("ema" in found.weights) is (kept is not None)
    assert same(found.weights["ema"], EMA)


BODY: State = timm.create_model("resnet10t", num_classes=0).state_dict()


def resnet_state(head: State) -> State:
    return {**BODY, **head}


V1_HEAD = {"fc.weight": torch.zeros(128, 512), "fc.bias": torch.zeros(128)}
V2_HEAD = {
    "fc.0.weight": torch.zeros(512, 512),
    "fc.0.bias": torch.zeros(512),
    "fc.2.weight": torch.zeros(128, 512),
    "fc.2.bias": torch.zeros(128),
}


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("head", [V1_HEAD, V2_HEAD], ids=["v1", "v2"])
def test_moco_gives_the_query_encoder_without_its_projection(prefix: str, head: State, tmp_path: Path) -> None:
    query = resnet_state(head)
    keys = {name: tensor + 1 for name, tensor in resnet_state(head).items()}
    state = {**prefixed(query, "encoder_q."), **prefixed(keys, "encoder_k.")}
    state |= {"queue": torch.zeros(128, 16), "queue_ptr": torch.zeros(1)}
    content = {"epoch": 800, "arch": "resnet50", "state_dict": prefixed(state, prefix), "optimizer": OPTIMIZER}
    found = opened(content, tmp_path)
    assert found.layout == "moco"
    assert "a MoCo checkpoint (epoch 800)" in found.description
    assert same(found.weights["raw"], {n: t for n, t in query.items() if n not in head})
    assert found.dropped == {
        f"encoder_k.* ({len(keys)} tensors)": "MoCo's key encoder",
        "queue* (2 tensors)": "MoCo's queue of keys",
        f"fc.* ({len(head)} tensors)": "MoCo's projection head, no classifier",
    }


def test_a_stripped_moco_file_is_known_by_its_projection(tmp_path: Path) -> None:
    found = opened(resnet_state(V2_HEAD), tmp_path)
    assert found.layout == "moco"
    assert same(found.weights["raw"], resnet_state({}))
    assert "fc.* (4 tensors)" in found.dropped


@pytest.mark.parametrize(
    "head",
    [
        V1_HEAD,  # 128 classes are as likely
        {**V2_HEAD, "fc.2.weight": torch.zeros(10, 512), "fc.2.bias": torch.zeros(10)},
        {**V2_HEAD, "fc.0.weight": torch.zeros(256, 512), "fc.2.weight": torch.zeros(128, 256)},
        {**V2_HEAD, "fc.4.weight": torch.zeros(3, 128)},
    ],
    ids=["one layer", "another width", "not square", "three layers"],
)
def test_a_head_that_could_be_a_classifier_stays(head: State, tmp_path: Path) -> None:
    found = opened(resnet_state(head), tmp_path)
    assert (found.layout, found.dropped) == ("flat", {})
    assert same(found.weights["raw"], resnet_state(head))


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    state = {**prefixed(RAW, "model."), "teacher.weight": torch.ones(5)}
    found = opened({"state_dict": state}, tmp_path)
    assert same(found.weights["raw"], state)
    assert "prefix" not in found.description


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": RAW, "state_dict": EMA}, r"under several keys: state_dict, model"),
        ({"state_dict": RAW, "model_ema": EMA, "state_dict_ema": EMA}, r"several keys: state_dict_ema, model_ema"),
        ({"generator": RAW, "critic": EMA}, r"no weights where .*\n  it holds: generator \(dictionary of"),
        ({**RAW, "epoch": 3}, r"mixes tensors with other values\n  it holds: .*\n  allowed: a flat dictionary"),
        ({"state_dict": {**RAW, "epoch": 3}}, r"'state_dict' must hold tensors by name; it holds epoch \(int\)"),
        ({"model": {"state_dict": RAW}}, r"'model' must hold tensors by name; it holds state_dict \(dictionary of"),
        ({"state_dict": {}}, r"no weights where they are known to be\n  it holds: state_dict \(dictionary of 0\)"),
        ({"state_dict": None, "epoch": 2}, r"it holds: state_dict \(nothing\), epoch \(int\)"),
        ({"n_averaged": torch.tensor(3)}, r"holds no tensors of a network"),
        ({0: torch.ones(2)}, r"by name; it holds 0 \(tensor \[2\]\)"),
        ({}, r"holds dictionary of 0, not a dictionary with tensors"),
        ([torch.ones(2)], r"holds list, not a dictionary"),
        (torch.ones(2), r"holds tensor \[2\], not a dictionary"),
        (None, r"holds nothing, not"),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused(content: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as error:
        opened(content, tmp_path)
    assert "file.pth.tar" in str(error.value)


WHOLE: dict[str, Callable[[nn.Module], Any]] = {
    "alone": lambda model: model,
    "under a key": lambda model: {"model": model, "epoch": 1, "args": argparse.Namespace(num_classes=5, model="r")},
    "wrapped": nn.DataParallel,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_pickled_network_needs_trust_and_gives_its_state(name: str, tmp_path: Path) -> None:
    torch.save(WHOLE[name](network(1)), tmp_path / "w.pt")
    with pytest.raises(UserError, match="--trust"):
        open_checkpoint(tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="RUNS CODE"):
        found = open_checkpoint(tmp_path / "w.pt", trust=True)
    assert same(found.weights["raw"], RAW)
    assert found.num_classes == (5 if name == "under a key" else None)


def test_a_network_may_not_bring_a_tensor_that_its_file_does_not_hold(tmp_path: Path) -> None:
    class Repeated(nn.Module):
        def state_dict(self, *_: Any, **__: Any) -> State:  # type: ignore[override]
            return {"w": torch.zeros(1).expand(10**10)}

    reading = layouts._Reading(tmp_path / "w.pt")
    with pytest.raises(UserError, match="spread over a storage of 4"):
        layouts._flat(Repeated(), "the network", reading)


def test_statistics_that_never_moved_are_noticed() -> None:
    fresh = timm.create_model("test_resnet", num_classes=5)
    images = torch.randn(4, 3, 32, 32)
    average = AveragedModel(fresh)  # copies parameters only, as before PyTorch 2.0
    average.module.load_state_dict(fresh.state_dict())
    fresh.train()(images)
    assert not untrained_statistics(fresh.state_dict())
    assert untrained_statistics(average.state_dict())
    initial = dict(average.module.state_dict())
    norm = next(name for name in initial if name.endswith("running_mean")).removesuffix(".running_mean")
    for name in (f"{norm}.running_mean", f"{norm}.running_var"):
        assert not untrained_statistics({**initial, name: initial[name] + 0.01})
    assert not untrained_statistics({"weight": torch.zeros(3)})


def test_opening_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(CASES["timm"][0], tmp_path)


@pytest.mark.parametrize("prefix", ["ema_model.", "model_ema.module.", "ema."])
def test_an_average_beside_its_network_is_told_apart(prefix: str, tmp_path: Path) -> None:
    average = {name: tensor + 1 for name, tensor in RAW.items()}
    content = {
        **prefixed(RAW, "model."),
        **prefixed(average, prefix),
        f"{prefix.split('.')[0]}.decay": torch.tensor(0.9),
    }
    torch.save({"state_dict": content, "pytorch-lightning_version": "2"}, tmp_path / "a.ckpt")
    found = open_checkpoint(tmp_path / "a.ckpt")
    for label, wanted in (("raw", RAW), ("ema", average)):
        assert found.weights[label].keys() == wanted.keys()
        assert all(torch.equal(found.weights[label][name], tensor) for name, tensor in wanted.items())
