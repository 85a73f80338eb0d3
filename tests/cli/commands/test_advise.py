"""`fixres advise`: what it writes, says and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.cli.main import main
from fixres.models.small_networks import PretrainedNetwork


def test_the_command_writes_what_it_says(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "advice.json"
    assert main(["advise", str(trained_run), "--sizes", "32,64", "--fixed", "false", "--json", str(path)]) == 0
    answer = json.loads(path.read_text())
    text = capsys.readouterr().err
    assert f"advice: as it is at {answer['advice']['size']} px" in text
    assert "objects look 0.797 times as large" in text
    assert "as large at about 40 px, for which 64 px is used" in text


def test_the_plot_is_drawn_as_svg_and_png(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["advise", str(trained_run), "--sizes", "32,64", "--fixed", "false", "--plot"]
    assert main([*words, str(tmp_path / "a.svg")]) == 0
    svg = (tmp_path / "a.svg").read_text()
    assert "as it is, crop 0.875" in svg
    assert "nothing is cheaper and as good" in svg
    assert main([*words, str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*words, str(tmp_path / "a.jpg")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err


def test_the_advice_ends_with_the_command_that_acts_on_it(
    trained_run: Path, fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    words = ["--sizes", "32,48", "--crop-ratios", "0.875", "--json", str(path)]
    assert main(["advise", str(trained_run), "--fixed", "false", *words]) == 0
    answer = json.loads(path.read_text())
    assert answer["commands"] == [f"fixres eval {trained_run} --sizes {answer['advice']['size']}"]
    assert answer["commands"][0] in capsys.readouterr().err.replace("\n", " ")
    assert main(["advise", str(fixed_run), "--fixed", "false", *words]) == 0
    assert json.loads(path.read_text())["commands"][0].endswith("--weights before_fix")


def test_the_size_that_auto_takes_is_told_by_the_rule_of_the_fix_itself(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert main(["advise", str(trained_run), "--sizes", "32,64", "--fixed", "false", "--json", str(path)]) == 0
    auto = json.loads(path.read_text())["auto"]
    assert auto["size"] == 64
    assert "from 64 px on objects look as large as in training, which leaves out 32 px" in auto["why"]


def test_which_size_to_train_at_is_answered_for_a_serve_size(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    words = ["--sizes", "32", "--serve-size", "128", "--fixed", "false", "--json", str(path)]
    assert main(["advise", str(trained_run), *words]) == 0
    answer = json.loads(path.read_text())
    assert answer["advice"]["size"] == 128
    found = answer["train_size"]
    # 0.797 of 128, the inverse of the size at which objects look as large as in training.
    assert found["exact"] == pytest.approx(103, abs=2)
    assert found["size"] == 96
    assert "trained at 32 px, this network is right there in" in found["why"]
    recipe = trained_run / "recipe.yaml"
    assert answer["commands"][1] == f"fixres train {recipe} --train.size 96 --fix.size 128"


@pytest.fixture
def tiny_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures be probed with a tiny network of random weights."""
    monkeypatch.setattr(
        "fixres.experiments.advise_pictures.named_networks",
        lambda names: [PretrainedNetwork(name, "none") for name in names],
    )


@pytest.mark.usefixtures("tiny_probe")
def test_pictures_get_a_table_and_the_command_that_trains(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    words = ["advise", str(photos), "--models", "test_resnet", "--sizes", "32,48", "--json", str(path)]
    assert main(words) == 0
    answer = json.loads(path.read_text())
    assert len(answer["rows"]) == 4
    assert answer["split"] == "train"
    assert answer["commands"] == [f"fixres train {photos} --models test_resnet --minutes 3"]
    text = capsys.readouterr().err
    assert "test_resnet at 48 px, crop 0.875:" in text
    assert answer["commands"][0] in text.replace("\n", " ")
    assert main([*words, "--serve-size", "128"]) == 0
    answer = json.loads(path.read_text())
    assert (answer["advice"]["size"], answer["train_size"]["size"]) == (128, 96)
    assert "--train.size 96 --fix.size 128" in answer["commands"][0]
    assert main([*words, "--budget-gmacs", "0.000001"]) == 2
    assert "nothing measured is within the budget" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_probe")
def test_an_unreadable_picture_is_refused_by_name_or_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = sorted((photos / "train" / "red").iterdir())[0]
    bad.write_bytes(b"no picture")
    words = ["advise", str(photos), "--models", "test_resnet", "--sizes", "32"]
    assert main(words) == 2
    assert bad.name in capsys.readouterr().err
    assert main([*words, "--on-bad-image", "skip", "--json", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["num_bad_images"] == 1
    assert "1 picture left out" in capsys.readouterr().err


def test_a_flag_for_the_other_kind_is_refused(
    trained_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", str(trained_run), "--models", "resnet18"]) == 2
    assert "is a checkpoint, and --models is for pictures" in capsys.readouterr().err
    assert main(["advise", str(photos), "--data", "folder:x"]) == 2
    assert "is pictures, and --data is for a checkpoint" in capsys.readouterr().err
    assert main(["advise", "no/such/folder"]) == 2
    assert "no/such/folder does not exist" in capsys.readouterr().err
