"""Ours: `fixres train PHOTOS --minutes M` on every fold, as selected and after `--final`.

    python -m benchmarks.own_pictures.ours --folds runs/own/elpv/folds --out runs/own/elpv/answers --minutes 1 3

The command is given the table of a fold: it trains and chooses among the training pictures, as it does for everyone,
and reports on the test pictures, which `fixres eval` then measures once more. The refit sees the training pictures
alone. Seconds are those of the command, start-up and report included; the first product is timed from outside, by the
moment its config.json lies in the run folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.own_pictures.answers import Answers, answers_file, write_answers
from benchmarks.own_pictures.folds import fold_files

_REFIT = "import sys; from pathlib import Path; from fixres.experiments.refit import refit; " + (
    "refit(Path(sys.argv[1]), Path(sys.argv[2]), uri=sys.argv[3], resume=True)"
)
"""What `fixres train PHOTOS --final` does, on the training pictures of a fold alone."""
ON_TIME = 1.1
"""Share of the minutes asked for within which the command is to be over."""


def timed_command(arguments: Sequence[str], run: Path) -> tuple[float, float | None]:
    """Run `fixres ARGUMENTS` and return its seconds, and those until `run` held a product; None if it never did.

    Raises:
        RuntimeError: it failed.
    """
    product = run / "model" / "config.json"
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    first = None
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen([sys.executable, "-m", "fixres", *arguments], stdout=said, stderr=said)
        try:
            while process.poll() is None:
                if first is None and product.exists():
                    first = time.monotonic() - begun
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    seconds = time.monotonic() - begun
    if process.returncode:
        raise RuntimeError(f"fixres {' '.join(arguments)} ended with {process.returncode}: see {log}")
    return seconds, first if first is not None or not product.exists() else seconds


def tested(product: Path, table: Path, out: Path) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """Return labels and predictions of a fold's test pictures by path, and what the evaluation says of them."""
    arguments = ["--data", f"csv:{table}", "--split", "test"]
    files = ["--predictions", str(out.with_suffix(".csv")), "--json", str(out.with_suffix(".json"))]
    subprocess.run([sys.executable, "-m", "fixres", "eval", str(product), *arguments, *files], check=True)
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    result = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["results"][0]
    own = [row for row in rows if row["size"] == str(result["size"])]
    return {row["path"]: row["label"] for row in own}, {row["path"]: row["prediction"] for row in own}, result


def outcome(run: Path) -> dict[str, Any]:
    """Return what the run chose: network and sizes of the product, what shipped, and the last event of every kind."""
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    own = config["fixres"]
    events: dict[str, Any] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] not in ("train", "epoch"):
            events[event["event"]] = event
    candidates = events.get("candidates", {}).get("candidates", [])
    return {
        "network": config["architecture"],
        "shipped": next((row["kind"] for row in candidates if row["is_shipped"]), "head alone"),
        **{key: own.get(key) for key in ("train_size", "test_size", "crop_ratio", "moves")},
        "events": events,
    }


def measure_fold(file: Path, fold: int, minutes: float, out: Path) -> None:
    """Train on one fold for some minutes, measure, refit with `--final`, and measure again; skip what is there."""
    arm = f"fixres {minutes:g} min"
    run = out / "runs" / f"{minutes:g}-min-fold-{fold}"
    # Its test pictures are reported on and never chosen by; a refit is given the others alone.
    uri, others = f"csv:{file}", f"csv:{file.parent / f'train-{fold}.csv'}"
    final = f"{arm} final"
    if not answers_file(out, arm, fold).exists():
        # What a stopped run left: a clock goes from the start.
        shutil.rmtree(run, ignore_errors=True)
        command = ["train", uri, "--minutes", f"{minutes:g}", "--out", str(run)]
        seconds, first = timed_command(command, run)
        labels, predictions, result = tested(run, file, out / "runs" / f"{run.name}-test")
        details = {
            "command": command,
            "first_product_seconds": first,
            "is_on_time": seconds <= ON_TIME * 60 * minutes,
            "result": result,
            **outcome(run),
        }
        write_answers(out, Answers(arm, "ours", fold, labels, predictions, seconds, details))
    if not answers_file(out, final, fold).exists():
        command = [sys.executable, "-c", _REFIT, str(run), str(run / "final"), others]
        begun = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - begun
        labels, predictions, result = tested(run / "final" / "model", file, out / "runs" / f"{run.name}-final")
        details = {"command": command, "result": result}
        write_answers(out, Answers(final, "ours", fold, labels, predictions, seconds, details))


def main() -> None:
    """Measure every budget on every fold that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True, help="folder that folds.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, nargs="+")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3])
    asked = parser.parse_args()
    for fold, file in fold_files(asked.folds, asked.fold).items():
        for minutes in asked.minutes:
            measure_fold(file.absolute(), fold, minutes, asked.out.absolute())


if __name__ == "__main__":
    main()
