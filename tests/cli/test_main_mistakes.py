"""Mistakes on the command line have one message, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import FAST, Run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--data.uri", "nowhere"), "nowhere"),
        (
            ("train", "--data.uri", "synthetic:", "--model.name", "resnett18"),
            "unknown model 'resnett18' - did you mean",
        ),
        (("train", "--data.uri", "synthetic:", "--train.sise", "32"), "train.size"),
        (("train", "missing.yaml"), "missing.yaml"),
        (
            ("train", "--data.uri", "synthetic:images=16", *FAST, "--train.batch_size", "99"),
            "--train.batch_size 16 is the largest that works",
        ),
        (
            ("train", "--data.uri", "synthetic:", *FAST, "--model.name", "test_vit", "--train.size", "50"),
            "cannot take 50 px\n  it takes 32",
        ),
        (("train", "--data.uri", "synthetic:", *FAST, "--model.weights", "gone.pth"), "gone.pth"),
        (("train", "--data.uri", "synthetic:", *FAST, "--runtime.device", "cuda"), "runtime.device cuda"),
        (("eval", "nowhere"), "nowhere does not exist"),
        (("eval",), "CHECKPOINT is missing"),
        (("predict", "nowhere", "x.jpg"), "nowhere does not exist"),
        (("fix", "nowhere", "--size", "64"), "nowhere does not exist"),
        (("fix", "nowhere", "--size", "big"), "size"),
        (("report",), "RUNS is missing"),
        (("report", "nowhere"), "nowhere"),
        (("study", "elpv-demo", "--seeds", "a,b"), "--seeds"),
        (("study", "elpv-demo"), "fixres study elpv-demo --seeds 0,1,2"),
        (("eval", "nowhere", "--batch-size", "0"), "batch"),
        (("eval", "nowhere", "--workers", "-1"), "workers"),
        (("eval", "nowhere", "--sizes", "0"), "size"),
        (("predict", "nowhere", "x.jpg", "--top-k", "0"), "top"),
        (("train", "--data.uri", "synthetic:", "--train.enabled", "false", "--fix.size", "64"), "random network"),
        (("train", "--data.uri", "synthetic:", *FAST, "--train.size", "100000"), "from 1 to 4096"),
        (("train", "--data.uri", "synthetic:", *FAST, "--out", "/proc/x"), "cannot write"),
        (("trian",), "did you mean 'train'"),
    ],
)
def test_mistakes_have_one_message_and_exit_2(fixres: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    code, out, err = fixres(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("fixres: ")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"
