"""The Ascend path by dispatch: a stub stands in for torch_npu, and shows what is chosen, never what is computed.

The stub gives PyTorch's spare device the name npu, as torch_npu does, and a process group named hccl that is gloo
underneath. It has no kernels: nothing here says that a network runs on an NPU.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src"

STUB = """
import types

import torch

torch.utils.rename_privateuse1_backend("npu")
chosen = []
npu = types.ModuleType("torch.npu")
npu.is_available = lambda: True
npu.is_initialized = lambda: True
npu.device_count = lambda: 8
npu.current_device = lambda: chosen[-1].index if chosen else 0
npu.set_device = chosen.append
npu._is_in_bad_fork = lambda: False
npu.manual_seed_all = lambda seed: None
npu.get_rng_state = lambda: "the NPU's"
npu.set_rng_state = chosen.append
npu.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
npu.amp = types.SimpleNamespace(GradScaler=lambda **kwargs: torch.amp.GradScaler("npu", **kwargs))
torch._register_device_module("npu", npu)


def hccl(store, rank, size, timeout):
    return torch.distributed.ProcessGroupGloo(store, rank, size, timeout)


torch.distributed.Backend.register_backend("hccl", hccl, devices=["npu"])
"""

PROBE = """
import json, sys
import torch
from fixres.config.recipe import Runtime as Settings
from fixres.errors import UserError
from fixres.runtime.device import Runtime
import torch_npu

for settings in json.loads(sys.argv[1]):
    torch_npu.chosen.clear()
    try:
        runtime = Runtime(Settings(**settings))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        continue
    scaler = runtime.accelerator.scaler
    factors = None if scaler is None else [scaler.get_backoff_factor(), scaler.get_growth_factor()]
    with runtime.autocast():
        dtype = str(torch.get_autocast_dtype("npu")) if torch.is_autocast_enabled("npu") else ""
    print(json.dumps({
        "device": runtime.device.type,
        "index": runtime.device.index,
        "precision": runtime.precision,
        "autocast": dtype,
        "scale_factors": factors,
        "backend": torch.distributed.get_backend() if torch.distributed.is_initialized() else "",
        "gathered": runtime.processes.gather(runtime.processes.shard.rank),
        "type": runtime.accelerator.distributed_type.value,
        "chosen": [str(one) for one in torch_npu.chosen],
    }))
"""
ABSENT = "cuda" if sys.platform == "darwin" else "mps"


def start(
    folder: Path, asked: list[dict[str, Any]], environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a process that has the stub, and makes one runtime after another of the settings `asked`."""
    (folder / "torch_npu.py").write_text(STUB)
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    inherited = {name: value for name, value in os.environ.items() if name not in launcher}
    path = {"PYTHONPATH": os.pathsep.join([str(folder), str(SOURCE)]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROBE, json.dumps(asked)],
        env={**inherited, **path, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    said, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what one process chooses, by the device that was asked for."""
    devices = ("auto", "cpu", ABSENT)
    process = start(tmp_path_factory.mktemp("npu"), [{"device": device} for device in devices])
    return dict(zip(devices, answers(process), strict=True))


def test_an_npu_is_taken_where_there_is_one(alone: dict[str, dict[str, Any]]) -> None:
    assert alone["auto"]["device"] == "npu"
    assert alone["auto"]["backend"] == ""


def test_an_npu_computes_in_half_precision_with_a_loss_scale_that_follows_the_gradients(
    alone: dict[str, dict[str, Any]],
) -> None:
    assert (alone["auto"]["precision"], alone["auto"]["autocast"]) == ("fp16", "torch.float16")
    backoff, growth = alone["auto"]["scale_factors"]
    assert 0 < backoff < 1 < growth


def test_an_npu_is_left_alone_when_the_cpu_is_asked_for(alone: dict[str, dict[str, Any]]) -> None:
    found = alone["cpu"]
    assert (found["device"], found["precision"], found["scale_factors"]) == ("cpu", "fp32", None)
    assert found["chosen"] == []


def test_a_device_that_is_not_there_names_the_npu_that_is(alone: dict[str, dict[str, Any]]) -> None:
    assert f"runtime.device {ABSENT} is not available here\n  allowed: auto, cpu" in alone[ABSENT]["error"]
    assert alone[ABSENT]["error"].endswith("npu")


@pytest.mark.parametrize(
    ("device", "backend"), [("auto", "hccl"), pytest.param("cpu", "gloo", marks=pytest.mark.system)]
)
def test_processes_meet_through_the_backend_of_the_device(device: str, backend: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start(tmp_path, [{"device": device}], {**meeting, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
    try:
        found = [answers(process)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [one["backend"] for one in found] == [backend] * 2
    # Messages that are no gradients go through gloo on the CPU, whatever the device.
    assert [one["gathered"] for one in found] == [[0, 1], [0, 1]]
    if backend == "hccl":
        assert [one["type"] for one in found] == ["MULTI_NPU"] * 2
        # Each process has the device of its rank on the machine.
        assert [one["index"] for one in found] == [0, 1]
        assert [one["chosen"] for one in found] == [["npu:0"], ["npu:1"]]
