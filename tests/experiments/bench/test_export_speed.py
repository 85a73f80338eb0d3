"""`fixres bench export`: every format answers the same pictures, and what cannot be written is a row that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.evaluation.metrics import paired_difference
from fixres.experiments.bench import export_speed
from fixres.experiments.bench.export_speed import Written, bench_export
from fixres.experiments.questions import ExportBench


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_speed, "_TURN_SECONDS", 0.005)


def test_files_answer_what_eval_measures_and_missing_ones_say_why(trained_run: Path, short_turns: None) -> None:
    product = load(str(trained_run))

    def write(own: Product, name: str, threads: int) -> Written:
        if name == "none":
            raise UserError("cannot be written\n  try another")

        @torch.inference_mode()
        def run(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            assert images.shape[2] == own.preprocess.size
            logits = own.model(torch.from_numpy(images)).numpy()
            return logits if name == "same" else np.eye(3, dtype=np.float32)[[0] * len(images)]

        return Written(name, "int8", 2_500_000, run)

    bench = ExportBench(formats=("same", "first", "none"), sizes=(32, 48), repeat=2, workers=0)
    answer = bench_export(bench, product, write, lambda _: None)
    rows = {(row["size"], row["format"]): row for row in answer["results"]}
    assert list(rows) == [(size, name) for size in (32, 48) for name in ("product", "same", "first", "none")]
    wanted = measure_product(load(str(trained_run)), EvalRequest(sizes=(32, 48), workers=0, device="cpu"))
    for place, size in enumerate((32, 48)):
        measured = wanted.found.results[place]
        for name in ("product", "same"):
            assert rows[size, name]["top1"] == measured["top1"]
            assert rows[size, name]["loss"] == pytest.approx(measured["loss"])
            assert rows[size, name]["gmacs"] == measured["gmacs"]
        first = paired_difference(wanted.found.correct()[place], wanted.found.labels == 0)
        assert rows[size, "first"]["minus_product"] == vars(first)
        assert first.num_worse
        assert rows[size, "none"] == {"size": size, "format": "none", "reason": "cannot be written\n  try another"}
        for name in ("product", "same", "first"):
            assert [taken["batch_size"] for taken in rows[size, name]["times"]] == [1, 16]
            assert all(taken["milliseconds"] > 0 for taken in rows[size, name]["times"])
    assert rows[32, "first"]["megabytes"] == 2.5
    weights = trained_run / "model" / "model.safetensors"
    assert rows[32, "product"]["megabytes"] == weights.stat().st_size / 1e6


def test_unknown_formats_are_refused_before_anything_is_measured(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "export", str(trained_run), "--formats", "onnx,openvin-int8"]) == 2
    assert "there is no format 'openvin' - did you mean 'openvino'?" in capsys.readouterr().err


@pytest.mark.system
def test_the_command_writes_every_format_and_shows_all_rows(
    trained_run: Path, short_turns: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["product", "onnx", "onnx-int8", "torch", "openvino", "openvino-int8"]
    words = ["--repeat", "1", "--workers", "0", "--json", "-"]
    assert main(["bench", "export", str(trained_run), *words]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["results"]
    assert [row["format"] for row in rows] == names
    assert [row["backend"] for row in rows] == ["torch", "onnxruntime", "onnxruntime", "torch", "openvino", "openvino"]
    for place in (1, 3, 4):
        assert (rows[place]["precision"], rows[place]["top1"]) == ("fp32", rows[0]["top1"])
    for place in (2, 5):
        assert rows[place]["precision"] == "int8"
        assert rows[place]["megabytes"] < 0.5 * rows[place - 1]["megabytes"]
    assert main(["bench", "export", str(trained_run), "--formats", "torch-int8", *words]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["results"][1]["reason"].startswith("torch files stay in 32 bits")
    assert "torch-int8 at 32 px is not there: torch files stay in 32 bits" in told.err
