"""Prints the port's result lines of a run or of an evaluation, and writes its `Key = value` file beside it."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixres.config.loading import load

NETWORK = "FixRes_for_PyTorch"


def of_run(output: Path, kind: str, mode: str) -> None:
    """Write the results of OUTPUT/run: FPS of the last epoch, accuracy in percent, loss, seconds of the whole run."""
    run = output / "run"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = _last(events, "comparison")["rows"]
    # "npu (aarch64), fp16, 8 threads, 8 processes"; a lone process is not counted there.
    shared = re.search(r"(\d+) processes", _last(events, "start")["device"])
    devices = int(shared[1]) if shared else 1
    batch = load(run / "recipe.yaml").run_stages[-1].batch_size
    doing, done = ("Training", "Train") if kind == "train" else ("Finetuning", "Finetune")
    # A head that was solved, not trained, has neither speed nor loss of a step.
    fps, loss = _last(events, "epoch").get("fps", 0.0), _last(events, "train").get("loss")
    seconds = round(_last(events, "done")["seconds"])
    accuracy = rows[-1]["top1"]
    before = [row["top1"] for row in rows if row["label"] != "fixed" and row["size"] == rows[-1]["size"]]
    if kind == "finetune" and before:
        print(f"Accuracy before fine-tuning : {before[0]:.3f}")
    print(f"Final Performance images/sec : {fps:.2f}")
    print(f"Final {done} Accuracy : {accuracy:.3f}")
    print(f"E2E {doing} Duration sec : {seconds}")
    keys = {
        "ActualFPS": f"{fps:.2f}",
        f"{doing}Time": f"{batch * 1000 / fps:.2f}" if fps else "-",
        f"{done}Accuracy": f"{accuracy:.3f}",
        "ActualLoss": "-" if loss is None else f"{loss:.3f}",
        f"E2E{doing}Time": seconds,
    }
    _write(output, devices, batch, "acc" if mode == "full" else "perf", keys)


def of_evaluation(output: Path, devices: int, seconds: int) -> None:
    """Write the results of OUTPUT/eval.json, which took `seconds` on `devices` processes, each with its own batches."""
    answer = json.loads((output / "eval.json").read_text(encoding="utf-8"))
    result = answer["results"][-1]
    print(f"Final Train Accuracy : {result['top1']:.3f}")
    print(f"E2E Training Duration sec : {seconds}")
    keys = {
        "TrainAccuracy": f"{result['top1']:.3f}",
        "ActualLoss": f"{result['loss']:.3f}",
        "E2ETrainingTime": seconds,
    }
    _write(output, devices, answer["conditions"]["batch_size"] * devices, "acc", keys)


def _last(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((event for event in reversed(events) if event["event"] == name), {})


def _write(output: Path, devices: int, batch: int, what: str, keys: Mapping[str, object]) -> None:
    case = f"{NETWORK}_bs{batch}_{devices}p_{what}"
    about = {
        "Network": NETWORK,
        "RankSize": devices,
        "BatchSize": batch,
        "DeviceType": platform.machine(),
        "CaseName": case,
    }
    (output / f"{case}.log").write_text("".join(f"{key} = {value}\n" for key, value in (about | keys).items()))


if __name__ == "__main__":
    if sys.argv[2] == "eval":
        of_evaluation(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        of_run(Path(sys.argv[1]), *sys.argv[2:4])
