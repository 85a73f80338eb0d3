"""What training programs keep beside the weights loads without trust, and cannot be used against the reader."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fixres.checkpoints.foreign.layouts import open_checkpoint
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.io import safe_load
from fixres.io.safe_load import read_checkpoint

each_format = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, "w.pth.tar", _use_new_zipfile_serialization=not legacy)
    return Path("w.pth.tar").absolute()


def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def trained(model: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state of an optimizer and of a schedule after one step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    schedule.step()
    return optimizer.state_dict(), schedule.state_dict()


def of_timm(model: nn.Module) -> dict[str, Any]:
    """What timm's train.py writes (CheckpointSaver._save)."""
    arguments = argparse.Namespace(model="test_resnet", num_classes=3, opt_betas=None, mean=[0.5], output=Path("out"))
    optimizer, _ = trained(model)
    return {
        **{"epoch": 3, "arch": "test_resnet", "state_dict": model.state_dict(), "optimizer": optimizer, "version": 2},
        **{"args": arguments, "amp_scaler": {"scale": 65536.0, "_growth_tracker": 7}, "metric": 71.25},
    }


def of_torchvision(model: nn.Module) -> dict[str, Any]:
    """What references/classification/train.py writes."""
    arguments = argparse.Namespace(model="test_resnet", device="cuda", data_path="/data", lr=0.1, world_size=8)
    optimizer, schedule = trained(model)
    ema = {"n_averaged": torch.tensor(4), **{f"module.{k}": v for k, v in model.state_dict().items()}}
    return {
        **{"model": model.state_dict(), "optimizer": optimizer, "lr_scheduler": schedule, "epoch": 89},
        **{"args": arguments, "model_ema": ema, "scaler": {"scale": 2.0}},
    }


def of_lightning(model: nn.Module) -> dict[str, Any]:
    """What Trainer.save_checkpoint writes of a module with a loss that weights the classes."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    optimizer, schedule = trained(model)
    callback = {
        "monitor": "val_acc",
        "best_model_score": torch.tensor(0.71),
        "dirpath": "runs",
        "kth_value": torch.ones(()),
    }
    return {
        **{
            "epoch": 4,
            "global_step": 500,
            "pytorch-lightning_version": "2.5.0",
            "loops": {"fit_loop": {"state_dict": {}}},
        },
        **{"state_dict": {**state, "criterion.weight": torch.ones(3), "val_loss_fn.weight": torch.ones(3)}},
        **{"callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": callback}, "lr_schedulers": [schedule]},
        **{"optimizer_states": [optimizer], "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1}},
    }


def with_numpy(model: nn.Module) -> dict[str, Any]:
    """A script that keeps its best accuracy as numpy gave it, and the state of the generators."""
    generator = np.random.RandomState(0).get_state()
    return {"state_dict": model.state_dict(), "best_acc1": np.float64(71.25), "rng": (generator, [1, 2])}


PROGRAMS: dict[str, Callable[[nn.Module], dict[str, Any]]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "lightning": of_lightning,
    "state_dict": with_numpy,
}


@each_format
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_training_programs_write_loads_without_trust(program: str, legacy: bool) -> None:
    model = network()
    found = open_checkpoint(save(PROGRAMS[program](model), legacy=legacy))
    assert found.layout == program
    weights = found.weights["raw"]
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights.items())
    assert len(weights) == len(model.state_dict())
    if program == "timm":
        assert (found.num_classes, found.architecture) == (3, "test_resnet")
        assert "(epoch 3)" in found.description
    if program == "lightning":
        assert list(found.dropped) == ["criterion.* (1 tensor)", "val_loss_fn.* (1 tensor)"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_command_imports_them(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(PROGRAMS[program](network()))
    assert main(["import", str(path), "--model", "test_resnet", "--out", "model"]) == 0
    assert Path("model/model.safetensors").exists()
    assert ("left out criterion.*" in "".join(capsys.readouterr())) == (program == "lightning")


VALUES: dict[str, Any] = {
    "float64": np.float64(1.5),
    "float32": np.float32(1.5),
    "int64": np.int64(-7),
    "uint8": np.uint8(200),
    "bool": np.bool_(True),
    "complex": np.complex64(1 + 2j),
    "big-endian": np.array([1.5], ">f8").astype(">f8")[0],
    "text": np.str_("Käse"),
    "bytes": np.bytes_(b"ab"),
}


@each_format
@pytest.mark.parametrize("name", VALUES)
def test_numbers_of_numpy_are_themselves(name: str, legacy: bool) -> None:
    read = read_checkpoint(save({"w": torch.ones(1), "value": VALUES[name]}, legacy=legacy))["value"]
    assert type(read) is type(VALUES[name])
    assert read == VALUES[name]


@each_format
def test_other_values_beside_the_weights_do_no_harm(legacy: bool) -> None:
    counts: dict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    read = read_checkpoint(
        save(
            {
                "w": torch.ones(2),
                "namespace": argparse.Namespace(out=Path("runs"), sizes=[1, 2], inner=argparse.Namespace(x=1)),
                "counts": counts,
                "queue": collections.deque([1, 2], 5),
                "paths": [Path("a/b"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("c")],
                "array": np.arange(6.0).reshape(2, 3),
                "objects": np.array(["a", None], object),
                "dates": [
                    datetime.datetime(2026, 1, 2),
                    datetime.date(2026, 1, 2),
                    datetime.timedelta(3),
                    datetime.UTC,
                ],
                "space": types.SimpleNamespace(a=1),
                "dtype": np.dtype(np.float32),
                "record": np.zeros(1, [("a", "f8")])[0],
                "time": np.datetime64("2026-01-02"),
                "plain": (collections.Counter("aab"), {1, 2}, collections.OrderedDict(a=1)),
            },
            legacy=legacy,
        )
    )
    assert torch.equal(read["w"], torch.ones(2))
    assert (read["namespace"].sizes, read["namespace"].inner.x) == ([1, 2], 1)
    assert (read["counts"], read["queue"]) == ({"a": [1]}, [1, 2])
    assert read["plain"] == (collections.Counter("aab"), {1, 2}, {"a": 1})
    assert type(read["array"]).__name__ == "ndarray"
    assert not isinstance(read["array"], np.ndarray)


def test_weights_kept_as_arrays_of_numpy_are_named() -> None:
    with pytest.raises(UserError, match=r"w \(ndarray\)"):
        open_checkpoint(save({"w": np.ones(3), "x": torch.ones(2)}))


class Calls:
    """A pickle that calls `function` and then sets a state of the author's choice."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


scalar = np.float64(1).__reduce__()[0]
ATTACKS: dict[str, Any] = {
    # Under numpy's own reader these bytes become an address: the process dies, or does what the author wants.
    "address": Calls(scalar, Calls(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0)), b"A" * 8),
    "negative size": Calls(
        scalar, Calls(np.dtype, "U4", False, True, state=(3, "<", None, None, None, -8, 4, 0)), b"A"
    ),
    "zeros by number": Calls(scalar, Calls(np.dtype, "V4000000000")),
    "long text": Calls(scalar, Calls(np.dtype, "S4000000000"), b"A"),
    "array by shape": Calls(np.ndarray, (10**9, 10**9)),
    "list by tensor": Calls(list, torch.zeros(1).expand(10**4)),
}


READER = """
import resource, sys
from pathlib import Path
from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        print(type(read_checkpoint(Path(path))["bad"]).__name__, flush=True)
    except UserError as error:
        print(error, flush=True)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 200 * 1024 * (1024 if sys.platform == "darwin" else 1), grown
"""


def test_crafted_numpy_makes_no_addresses_and_allocates_nothing() -> None:
    paths = []
    for legacy in (False, True):
        for attack, bad in ATTACKS.items():
            path = save({"w": torch.ones(2), "bad": bad}, legacy=legacy)
            paths.append(str(path.rename(f"{attack} {legacy}.pt")))
    result = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-500:]
    assert len(result.stdout.splitlines()) == len(paths)
    for line in result.stdout.splitlines():
        assert line in ("_Inert", "ndarray", "list") or "cannot read" in line


class TheirConfig:
    """A class of a program that is not here, as OmegaConf's are."""


@each_format
def test_every_refused_name_is_listed_and_no_allowed_one(legacy: bool) -> None:
    content = {
        "a": argparse.Namespace(b=TheirConfig()),
        "c": argparse.Action([], "x"),
        "d": np.float64(1),
        "e": torch.nn.ReLU(),
    }
    with pytest.raises(UserError) as refused:
        read_checkpoint(save(content, legacy=legacy))
    names = f"argparse.Action, {__name__}.TheirConfig, torch.nn.modules.activation.ReLU"
    assert f"holds more than tensors and plain values: {names}\n" in str(refused.value)
    assert "weights_only" not in str(refused.value)


def test_what_is_allowed_is_so_only_while_a_file_is_read() -> None:
    own = (argparse.Namespace, "argparse.Namespace")
    path = save({"w": torch.ones(1), "args": argparse.Namespace(a=1), "value": np.float64(2)})
    torch.serialization.add_safe_globals([own])
    try:
        read_checkpoint(path)
        assert torch.serialization.get_safe_globals().count(own) == 1
    finally:
        torch.serialization.clear_safe_globals()
    threads = [threading.Thread(target=read_checkpoint, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.serialization.get_safe_globals() == []
    with pytest.raises(UserError):
        read_checkpoint(save({"w": torch.ones(1), "c": argparse.Action([], "x")}))
    assert torch.serialization.get_safe_globals() == []


def test_reading_goes_on_in_parallel_without_losing_a_name() -> None:
    path = save({"w": torch.ones(1), "args": argparse.Namespace(a=1)})
    failed: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(20):
                assert read_checkpoint(path)["args"].a == 1
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_storage_that_grew_while_it_was_read_is_refused() -> None:
    """Old files let torch enlarge a storage to suit a tensor: what it did not hold is uninitialised memory."""

    class Beyond:
        def __reduce__(self) -> Any:
            storage = torch.storage.TypedStorage(
                wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
            )
            return torch._utils._rebuild_tensor_v2, (storage, 0, (5000,), (1,), False, {})

    with pytest.raises(UserError, match=r"no checkpoint|its tensors take 20,000 bytes: more than its file holds"):
        read_checkpoint(save({"w": Beyond()}, legacy=True))


def test_a_legacy_file_is_read_to_its_end() -> None:
    path = save({"w": torch.arange(4.0), "args": argparse.Namespace(a=1)}, legacy=True)
    content = path.read_bytes()
    assert content.endswith(struct.pack("<q4f", 4, 0, 1, 2, 3))
    path.write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"it is truncated or no checkpoint$"):
        read_checkpoint(path)


def test_messages_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Weights only load failed. To change the default of weights_only ...")

    path = save({"w": torch.ones(1)})
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(UserError) as refused:
        safe_load.read_checkpoint(path)
    assert str(refused.value) == f"cannot read {path}: it is truncated or no checkpoint"
