"""`fix --mix`: between before and after, where the loss says, and as asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.io.tensors import read_weights
from fixres.runtime.run_folder import read_events
from fixres.training.mix import interpolated

pytestmark = pytest.mark.usefixtures("few_decays")
OTHER = "synthetic:classes=3,images=30,size=48,seed=7"


def fixed(trained: Path, out: Path, *words: str, size: int = 48) -> Path:
    assert main(["fix", str(trained), "--size", str(size), "--out", str(out), *words]) == 0
    return out


def test_interpolation_goes_from_one_to_the_other_and_leaves_counts_alone() -> None:
    before = {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor(3), "grid": torch.zeros(2)}
    after = {"w": torch.tensor([1.0, 0.0]), "count": torch.tensor(5), "grid": torch.ones(3)}
    half = interpolated(before, after, 0.5)
    assert torch.equal(half["w"], torch.tensor([0.5, 1.0]))
    assert half["count"] == 5
    assert torch.equal(half["grid"], torch.ones(3))
    assert all(torch.equal(interpolated(before, after, 1.0)[name], after[name]) for name in after)


def test_a_share_that_is_asked_for_is_taken(trained_run: Path, tmp_path: Path) -> None:
    whole, half = (fixed(trained_run, tmp_path / name, *words) for name, words in (("a", ()), ("b", ("--mix", "0.5"))))
    one, other = (read_weights(run / "model" / "model.safetensors") for run in (whole, half))
    before = read_weights(whole / "model" / "before_fix.safetensors")
    assert before
    for name, tensor in other.items():
        # What a fix leaves alone is the same in all three.
        if name in before and tensor.is_floating_point():
            assert torch.allclose(tensor, (before[name] + one[name]) / 2)
        else:
            assert torch.equal(tensor, one[name])
    back = load(f"{half}#before_fix").model.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in before.items())


def test_the_share_with_the_least_loss_is_taken(trained_run: Path, tmp_path: Path) -> None:
    run = fixed(trained_run, tmp_path / "auto", "--mix", "auto", "--also", OTHER)
    # The control at the train size is mixed as well.
    (event,) = [event for event in read_events(run) if event["event"] == "mix" and event["size"] == 48]
    assert [row["share"] for row in event["tried"]] == [0.25, 0.5, 0.75, 1.0]
    assert all(len(row["losses"]) == 2 for row in event["tried"])
    assert event["share"] == min(event["tried"], key=lambda row: row["loss"])["share"]
    again = fixed(trained_run, tmp_path / "again", "--mix", str(event["share"]))
    for name in ("model.safetensors", "before_fix.safetensors"):
        one, other = (read_weights(folder / "model" / name) for folder in (run, again))
        assert all(torch.equal(one[key], other[key]) for key in one | other)


def test_every_size_has_a_share_of_its_own_head(trained_run: Path, tmp_path: Path) -> None:
    run = fixed(trained_run, tmp_path / "a", "--mix", "0.5", "--sizes", "40,64")
    alone = fixed(trained_run, tmp_path / "b", "--mix", "0.5", size=64)
    one, other = load(str(run)).at(64).model.state_dict(), load(str(alone)).model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--also", OTHER), "add --mix auto"),
        (("--mix", "auto", "--also", "synthetic:classes=5,images=20,size=48"), "class"),
        (("--mix", "0"), "mix"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], answer: str
) -> None:
    assert main(["fix", str(trained_run), "--size", "48", "--out", str(tmp_path / "c"), *words]) == 2
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "c" / "model").exists()
