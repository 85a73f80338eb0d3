"""Run folders of version 0.1.0, and whether this machine computes their numbers to the bit.

Made with the recipe they hold, on one thread: `finished` ran through, `stopped` had SIGTERM after the second epoch of
the first stage. `expected.json` is what `fixres eval finished --split val --sizes 32,48 --json` wrote then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fixres.runtime.run_folder import environment

V0_1_0 = Path(__file__).parents[1] / "golden" / "v0_1_0"
FINISHED = V0_1_0 / "finished"
STOPPED = V0_1_0 / "stopped"
_INSTRUCTIONS = "AVX2"
"""What the processor of these runs was used for; others add in another order, which decides the last bits."""


def repeats_bits() -> bool:
    """Return whether processor and PyTorch are those of the golden runs."""
    then, now = json.loads((FINISHED / "environment.json").read_text()), environment()
    same_machine = (then["processor"], _INSTRUCTIONS) == (now["processor"], torch.backends.cpu.get_cpu_capability())
    return same_machine and then["versions"]["torch"] == now["versions"]["torch"]


def expected() -> dict[str, Any]:
    """Return the answer of 0.1.0's `fixres eval` about the finished run."""
    answer: dict[str, Any] = json.loads((V0_1_0 / "expected.json").read_text())
    return answer
