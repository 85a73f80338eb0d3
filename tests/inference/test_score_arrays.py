"""Scores from arrays: our own and published file names, the definitions of an evaluation, no PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.cli.main import main
from fixres.errors import UserError
from fixres.evaluation.metrics import NUM_BINS
from fixres.inference.score_arrays import Arrays, open_arrays, score
from tests.support.outcomes import result_of


def arrays(softmax: np.ndarray, labels: np.ndarray, embedding: np.ndarray | None = None) -> Arrays:
    return Arrays("", "", softmax.astype(np.float32), labels.astype(np.int64), None, embedding)


def softmax_of(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    num_classes=st.integers(2, 12),
    num=st.integers(1, 50),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 0.1, 3.0, 30.0]),
)
def test_scores_are_those_of_an_evaluation(num_classes: int, num: int, seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    # Rounded, so that there are ties; clipped, since float32 knows no probability below exp(-103).
    logits = np.round(generator.normal(size=(num, num_classes)) * scale, 1).clip(-40, 40)
    labels = generator.integers(0, num_classes, num)
    expected = result_of(torch.from_numpy(logits), torch.from_numpy(labels))
    found = score(arrays(softmax_of(logits), labels))
    assert (found["top1"], found["top5"]) == (expected["top1"], expected["top5"])
    assert found["top1_ci95"] == pytest.approx(expected["top1_ci95"])
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=1e-6)
    for key in ("balanced_accuracy", "macro_f1"):
        assert found[key] == pytest.approx(expected[key]), key
    confidences = softmax_of(logits).max(1)
    if not np.isclose(confidences[:, None], np.arange(NUM_BINS) / NUM_BINS, atol=1e-6).any():
        assert found["ece"] == pytest.approx(expected["ece"], abs=1e-6)


def published(folder: Path) -> dict[str, float]:
    """Write files as FixRes published them; return the accuracy of each."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 200)
    np.save(folder / "labels.npy", labels)
    right = {"ResNet50_softmax": 140, "ResNet50_softmax_v2": 150, "IGAM_Resnext101_32x48d_softmax_v2": 180}
    for name, count in right.items():
        shown = np.where(np.arange(200) < count, labels, (labels + 1) % 10)
        np.save(folder / f"{name}.npy", softmax_of(8.0 * np.eye(10)[shown]).astype(np.float32))
        np.save(folder / f"{name.replace('softmax', 'embedding')}.npy", np.eye(10, dtype=np.float32)[shown])
    return {name: count / 2 for name, count in right.items()}


def test_published_files_and_their_versions_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path)
    found = {(a.name, a.variant): score(a)["top1"] for a in open_arrays(tmp_path)}
    assert found == {("ResNet50", "v1"): 70, ("ResNet50", "v2"): 75, ("IGAM_Resnext101_32x48d", "v2"): 90}
    assert [a.variant for a in open_arrays(tmp_path, "ResNet50", "v2")] == ["v2"]
    assert open_arrays(tmp_path, "ResNet50", "v2")[0].embedding is not None
    assert main(["score", str(tmp_path), "--version", "v2", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert [(r["name"], r["top1"]) for r in json.loads(out)["results"]] == [
        ("IGAM_Resnext101_32x48d v2", 90),
        ("ResNet50 v2", 75),
    ]
    assert "75.00" in err
    assert main(["score", str(tmp_path), "--name", "PNASNet"]) == 2
    assert "ResNet50_softmax.npy" in capsys.readouterr().err


def test_score_needs_neither_torch_nor_a_second(tmp_path: Path) -> None:
    published(tmp_path)
    code = (
        "import sys, resource, fixres.cli.main as c\n"
        f"assert c.main(['score', {str(tmp_path)!r}]) == 0\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('torch' in sys.modules, used.ru_utime + used.ru_stime)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    results = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    ]
    has_torch, seconds = results[-1].stdout.split()
    assert has_torch == "False"
    # Processor time: other tests run at the same time.
    assert float(seconds) < 1


def test_probabilities_that_were_changed_afterwards_are_scored_as_they_are() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(30, 4)), generator.integers(0, 4, 30)
    kind = [("prediction", "<i8"), ("rank", "<i8"), ("confidence", "<f8"), ("loss", "<f8"), ("near_tie", "?")]
    outcomes = np.zeros(30, kind)
    p = softmax_of(logits).astype(np.float32)
    outcomes["prediction"], outcomes["confidence"] = p.argmax(1), p.max(1)
    outcomes["loss"] = -np.log(p[np.arange(30), labels].astype(np.float64))
    own = Arrays("", "", p, labels, outcomes, None)
    assert score(own)["source"] == "outcomes"
    averaged = Arrays("", "", (p + 1) / 5, labels, outcomes, None)
    assert score(averaged)["source"] == "softmax"
    assert score(averaged)["loss"] != score(own)["loss"]


def save(folder: Path, softmax: np.ndarray | None, labels: np.ndarray | None) -> None:
    if softmax is not None:
        np.save(folder / "softmax.npy", softmax)
    if labels is not None:
        np.save(folder / "labels.npy", labels)


GOOD = np.full((4, 3), 1 / 3, dtype=np.float32)


@pytest.mark.parametrize(
    ("softmax", "labels", "said"),
    [
        (None, np.zeros(4, np.int64), "no softmax file"),
        (GOOD, None, "no labels.npy"),
        (GOOD, np.zeros(5, np.int64), "they must be as many"),
        (GOOD, np.full(4, 3), "a label is the number of a column"),
        (GOOD, np.full(4, -1), "a label is the number of a column"),
        (GOOD, np.zeros(4), "allowed: integers"),
        (GOOD[0], np.zeros(3, np.int64), "allowed: float32"),
        (GOOD[:0], np.zeros(0, np.int64), "as many"),
        (GOOD * 7, np.zeros(4, np.int64), "give probabilities, not logits"),
        (np.full((4, 3), np.nan, np.float32), np.zeros(4, np.int64), "give probabilities, not logits"),
        (np.array([{"code": 1}], dtype=object), np.zeros(1, np.int64), "cannot be read as a NumPy array"),
    ],
)
def test_arrays_that_cannot_be_scored_have_one_message(
    tmp_path: Path, softmax: np.ndarray | None, labels: np.ndarray | None, said: str
) -> None:
    save(tmp_path, softmax, labels)
    with pytest.raises(UserError, match=said):
        [score(a) for a in open_arrays(tmp_path)]


def test_a_truncated_file_and_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, GOOD, np.zeros(4, np.int64))
    path = tmp_path / "softmax.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cannot be read"):
        open_arrays(tmp_path)
    with pytest.raises(UserError, match="fixres extract"):
        open_arrays(tmp_path / "nowhere")
    save(tmp_path, GOOD, np.zeros(4, np.int64))
    assert main(["score", str(tmp_path), "--neighbours", "2"]) == 2
    assert "--train DIR" in capsys.readouterr().err
    assert main(["score", str(tmp_path), "--json", str(tmp_path)]) == 2
    assert main(["score", str(tmp_path), "--json", str(path / "inside.json")]) == 2


def test_fewer_than_six_classes_have_no_top5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, GOOD, np.zeros(4, np.int64))
    assert main(["score", str(tmp_path), "--json", "-"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["top5"] is None
    # Equal probabilities: the lowest class wins.
    assert result["top1"] == 100
