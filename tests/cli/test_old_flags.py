"""What users of the four systems type by habit gets one line that points to their page."""

from __future__ import annotations

import pytest

from fixres.cli.main import main


@pytest.mark.parametrize(
    ("words", "flags", "system"),
    [
        (["train", "--learning-rate", "2e-2", "--num-tasks", "8"], "--learning-rate, --num-tasks", "FixRes"),
        (["train", "fixres/resnet50-224", "--data_path=/data"], "--data-path", "the Ascend port"),
        (["eval", "w.pth", "--input-size", "384", "--architecture", "R"], "--input-size, --architecture", "FixRes"),
        (["eval", "--weight-path", "w.pth"], "--weight-path", "FixRes"),
        (["fix", "w.pth", "--resnet-weight-path", "w.pth"], "--resnet-weight-path", "FixRes"),
        (["extract", "w.pth", "--imnet-path", "/data"], "--imnet-path", "FixRes"),
        (["predict", "w.pth", "--model_arch_name", "x"], "--model-arch-name", "ResNeXt-PyTorch"),
        (["train", "--max-lr", ".05", "--nb-epoch", "200"], "--max-lr, --nb-epoch", "SimpleClassification"),
        (["import", "w.pth", "--pth_path", "x", "--max-lr", "1"], "--pth-path, --max-lr", "the Ascend port and"),
    ],
)
def test_old_flags_get_one_line(words: list[str], flags: str, system: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    first = said.splitlines()[0]
    assert first.startswith(f"fixres: unknown option {flags}: ")
    assert system in first
    assert first.endswith("docs/migration.md says what to type here")
    assert "did you mean" not in said
    assert len(said.splitlines()) == 2


def test_other_mistakes_are_named_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "w.pth", "--input-size", "3", "--sizs", "64"]) == 2
    said = capsys.readouterr().err
    assert "--input-size: an option of the FixRes scripts of 2019" in said
    assert "'--sizs' - did you mean '--sizes'?" in said


def test_a_flag_that_a_command_has_is_that_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "nowhere.pth", "--batch-size", "8"]) == 2
    assert "migration" not in capsys.readouterr().err


def test_a_key_of_the_recipe_by_that_name_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "3", "--weight-decay", "0.1", "--max-lr", "1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("docs/migration.md says what to type here")
    assert lines[1] == "  --epochs: did you mean '--train.epochs'?"
    assert lines[2].startswith("  --weight-decay: did you mean '--")
    assert not any("--max-lr: did" in line for line in lines)
