"""`fixres bench fix`: both solvers fix the same network, and what is told of them is what their runs hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fixres.cli.main import main
from fixres.experiments.seeds import last_comparison
from fixres.models.build import build_model
from fixres.runtime.run_folder import read_events

pytestmark = pytest.mark.usefixtures("few_decays")


def test_both_solvers_fix_the_same_networks(
    trained_run: Path, other_seed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept"
    words = ["--size", "48", "--vs", "v2,v1,v2", "--epochs", "1", "--out", str(out), "--json", "-"]
    assert main(["bench", "fix", str(trained_run), str(other_seed_run), *words]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["epochs"] == {"v2": 1, "v1": 1}
    assert found["num_passes"] == [2, 2]
    assert len(found["forward_seconds"]) == 2
    for side, solver, augment in (("cached", "cached", None), ("v2", "sgd", "v2"), ("v1", "sgd", "v1")):
        for k in (0, 1):
            events = read_events(out / f"{k}-{side}")
            fix = next(e for e in events if e["event"] == "fix")
            assert (fix["size"], fix["solver"]) == (48, solver)
            assert found["sides"][side]["seconds"][k] == fix["solver_seconds"]
            product = json.loads((out / f"{k}-{side}" / "model" / "config.json").read_text())
            logged = {r["split"]: r["top1"] for r in product["fixres"]["results"] if r["size"] == 48}
            assert found["sides"][side]["top1"][found["report"]][k] == pytest.approx(logged[found["report"]])
            if augment:
                assert f"augment: {augment}" in (out / f"{k}-{side}" / "recipe.yaml").read_text()
    side = found["sides"]["v2"]
    ratios = sorted(
        theirs / ours for theirs, ours in zip(side["seconds"], found["sides"]["cached"]["seconds"], strict=True)
    )
    assert [side["ratio_lowest"], side["ratio_highest"]] == pytest.approx(ratios)
    assert found["ratio"] == pytest.approx(sum(ratios) / 2)
    for split, n in found["num_images"].items():
        mine, theirs = found["sides"]["cached"]["top1"][split], side["top1"][split]
        difference = side["cached_minus_this"][split]
        assert difference["num_images"] == n
        assert difference["per_seed"] == pytest.approx([a - b for a, b in zip(mine, theirs, strict=True)])
        low, high = difference["ci95"]
        assert low <= difference["mean"] <= high
    assert "one forward pass over the training pictures" in told.err
    runs = [out / f"{k}-cached" for k in (0, 1)]
    control = [{row["label"]: row["top1"] for row in last_comparison(run)["rows"]} for run in runs]
    gain = found["gain"]
    for part, (row, minus) in {
        "head": ("fixed at the train size", "train size"),
        "size": ("fixed", "fixed at the train size"),
        "both": ("fixed", "train size"),
    }.items():
        assert gain[part]["per_seed"] == pytest.approx([own[row] - own[minus] for own in control])
    assert f"the size: {gain['size']['mean']:+.2f} points" in told.err


def test_a_fixed_product_is_fixed_anew_from_what_it_was(
    trained_run: Path, fixed_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for run in (trained_run, fixed_run):
        assert main(["bench", "fix", str(run), "--size", "40", "--epochs", "1", "--json", "-"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["sides"]["cached"]["top1"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "48"], "CHECKPOINTS is missing"),
        (["{run}", "--size", "48", "--out", "{run}"], "exists already"),
        (["{run}", "--size", "48", "--vs", "v3"], "--vs"),
        (["nowhere", "--size", "48"], "nowhere"),
        (["{run}"], "--size"),
        (["{run}", "nowhere", "--size", "48"], "nowhere"),
        (["{run}", "{other}", "--size", "48"], "not made from the same pictures"),
        (["{two_heads}", "--size", "64"], "--size 64 --solver sgd"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], said: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"run": trained_run, "other": tmp_path / "other", "two_heads": tmp_path / "two_heads"}
    if "{other}" in words:
        shutil.copytree(trained_run / "model", folders["other"] / "model")
        path = folders["other"] / "model" / "config.json"
        path.write_text(path.read_text().replace("images=48", "images=54"))
    if "{two_heads}" in words:
        torch.save(build_model("repvit_m0_9", 3).state_dict(), tmp_path / "w.pth")
        bare = [str(tmp_path / "w.pth"), "--model", "repvit_m0_9"]
        assert main(["import", *bare, "--out", str(folders["two_heads"])]) == 0
    out = [] if "--out" in words else ["--out", str(tmp_path / "kept")]
    assert main(["bench", "fix", *(word.format(**folders) for word in words), *out]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
