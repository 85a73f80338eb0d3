"""`fixres eval`: an independent recount of --predictions equals the JSON, for any processes, workers and batch size."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from fixres.cli.main import main
from tests.support.several import run_processes

# 23 pictures: no batch size but 1 divides them, and no number of processes.
DATA = "synthetic:classes=6,images=69,size=48"


NUM = 23


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=6)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(model.state_dict(), path)
    return path


def evaluate(weights: Path, folder: Path, *extra: str, table: str = "p.csv") -> None:
    words = ["eval", str(weights), "--model", "test_resnet", "--data", DATA, "--split", "val", "--sizes", "32,48"]
    rest = ["--json", str(folder / "r.json"), "--predictions", str(folder / table), "--quiet", *extra]
    assert main([*words, *rest]) == 0


def recount(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Count with nothing but dictionaries."""
    names = sorted({row["label"] for row in rows} | {row["prediction"] for row in rows})
    pairs = Counter((row["label"], row["prediction"]) for row in rows)
    actual, predicted = Counter(row["label"] for row in rows), Counter(row["prediction"] for row in rows)
    right = {name: pairs[name, name] for name in names}
    recalls = [right[name] / actual[name] for name in names if actual[name]]
    f1 = [2 * right[name] / (actual[name] + predicted[name]) for name in names]
    return {
        "top1": 100 * sum(right.values()) / len(rows),
        "balanced_accuracy": 100 * sum(recalls) / len(recalls),
        "macro_f1": 100 * sum(f1) / len(f1),
    }


def check(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((folder / "r.json").read_text())
    assert answer["num_images"] == NUM
    assert len(rows) == 2 * NUM
    for result in answer["results"]:
        own = [row for row in rows if int(row["size"]) == result["size"]]
        assert len({row["path"] for row in own}) == NUM
        counted = recount(own)
        assert {key: result[key] for key in counted} == pytest.approx(counted, abs=1e-9)
        assert result["top1"] == counted["top1"]
    return answer


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("batch_size", ["1", "7", "64"])
@pytest.mark.parametrize("workers", ["0", "3"])
def test_a_recount_of_the_predictions_equals_the_json(
    weights: Path, tmp_path: Path, batch_size: str, workers: str
) -> None:
    evaluate(weights, tmp_path, "--batch-size", batch_size, "--workers", workers)
    check(tmp_path, read_csv(tmp_path / "p.csv"))


@pytest.mark.parametrize("batch_size", ["7", "64"])
def test_two_processes_write_what_one_writes(weights: Path, tmp_path: Path, batch_size: str) -> None:
    answers = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        words = ("--batch-size", batch_size, "--workers", "0", "--device", "cpu")
        found = run_processes(processes, evaluate, weights, folder, *words)
        assert found == [None] * processes
        answer = check(folder, read_csv(folder / "p.csv"))
        answers.append([{k: v for k, v in r.items() if k != "images_per_second"} for r in answer["results"]])
    assert answers[0] == answers[1]
    assert (tmp_path / "1" / "p.csv").read_bytes() == (tmp_path / "2" / "p.csv").read_bytes()


def test_parquet_holds_the_same_rows_in_full(weights: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    evaluate(weights, tmp_path)
    plain = read_csv(tmp_path / "p.csv")
    evaluate(weights, tmp_path, table="p.parquet")
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    check(tmp_path, rows)
    as_text = [{**row, "size": str(row["size"]), "probability": f"{row['probability']:.6f}"} for row in rows]
    assert as_text == plain
