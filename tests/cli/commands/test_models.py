"""`fixres models`: what is said about one architecture, several, many and none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fixres.cli.main import main
from fixres.errors import UserError
from fixres.models.catalogue import describe_architecture, search_architectures
from fixres.models.names import ALIASES, architecture_names, canonical


@pytest.mark.parametrize("pattern", ["resnett18", "zzz*", "", "[", "IGAM_Resnext101_32x49d"])
def test_what_matches_nothing_is_the_users_mistake(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no architecture matches"):
        search_architectures(pattern)
    assert main(["models", pattern]) == 2
    output = capsys.readouterr()
    assert "no architecture matches" in output.err
    assert not output.out


def test_no_pattern_lists_the_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{len(architecture_names()):,} architectures")
    rows = [line.split(maxsplit=2) for line in lines]
    for alias in (*ALIASES, "EfficientNet-B7-NoisyStudent"):
        (system,) = [row[2] for row in rows if row[:2] == [alias, canonical(alias)]]
        assert system


def test_one_match_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnet18_cif"]) == 0
    output = capsys.readouterr().out
    for line in ("parameters     11,173,962", "sizes          any", "weights        none published"):
        assert line in output


def test_another_systems_name_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "ResNet50"]) == 0
    output = capsys.readouterr()
    assert output.err == "ResNet50 is resnet50.tv_in1k\n"
    assert "fixres:FixResNet50" in output.out


def test_several_matches_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnet18_cifar", "test_vit"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["architecture", "parameters"]
    assert [row.split()[0] for row in rows] == ["resnet18_cifar", "test_vit"]
    assert rows[1].index("0.37 M") + len("0.37 M") == header.index("parameters") + len("parameters")


def test_many_matches_are_names_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "efficientnet*"]) == 0
    *columns, last = capsys.readouterr().out.splitlines()
    names = " ".join(columns).split()
    assert sorted(names) == sorted(search_architectures("efficientnet*"))
    assert last == f"{len(names)} match; narrow the pattern, or --full"


def test_json_is_a_list_of_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "test_vit", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["head"], entry["last_norms"]) == ("test_vit", ["head"], [["norm", "LayerNorm"]])
    assert entry["num_parameters"] == describe_architecture("test_vit").num_parameters


def test_help_does_without_torch() -> None:
    code = "import sys; from fixres.cli.main import main; main(['models', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
