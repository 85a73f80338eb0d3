"""Prints the port's result lines of a run, and writes its `Key = value` file. Needs nothing but Python."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

NETWORK = "FixRes_for_PyTorch"


def main(output: Path, kind: str, mode: str, devices: int, seconds: int) -> None:
    """Write the results of OUTPUT/run: FPS of the last epoch, accuracy in percent, loss, whole duration in seconds."""
    events = [json.loads(line) for line in (output / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = next(e for e in reversed(events) if e["event"] == "comparison")["rows"]
    fps = next(e for e in reversed(events) if e["event"] == "epoch")["fps"]
    loss = next(e for e in reversed(events) if e["event"] == "train")["loss"]
    doing, done = ("Training", "Train") if kind == "train" else ("Finetuning", "Finetune")
    accuracy = rows[-1]["top1"]
    batch = 64 * devices
    case = f"{NETWORK}_bs{batch}_{devices}p_{'acc' if mode == 'full' else 'perf'}"
    before = [row["top1"] for row in rows if row["label"] != "fixed" and row["size"] == rows[-1]["size"]]
    if kind == "finetune" and before:
        print(f"Accuracy before fine-tuning : {before[0]:.3f}")
    print(f"Final Performance images/sec : {fps:.2f}")
    print(f"Final {done} Accuracy : {accuracy:.3f}")
    print(f"E2E {doing} Duration sec : {seconds}")
    values = {
        "Network": NETWORK,
        "RankSize": devices,
        "BatchSize": batch,
        "DeviceType": platform.machine(),
        "CaseName": case,
        "ActualFPS": f"{fps:.2f}",
        f"{doing}Time": f"{batch * 1000 / fps:.2f}" if fps else "-",
        f"{done}Accuracy": f"{accuracy:.3f}",
        "ActualLoss": f"{loss:.3f}",
        f"E2E{doing}Time": seconds,
    }
    (output / f"{case}.log").write_text("".join(f"{key} = {value}\n" for key, value in values.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
