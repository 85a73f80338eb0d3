"""`fixres recipes`: the list, one of them, and a copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.cli import main
from fixres.config.loading import load, to_yaml
from fixres.config.yaml_text import parse


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "cells.yaml").write_text("# Solar cells, 96 px.\ndata: {uri: 'elpv:'}\ntrain: {size: 96}\n")
    (folder / "long-name.yaml").write_text("seed: 1\n")
    monkeypatch.setattr("fixres.config.loading.FOLDER", folder)
    return folder


def test_recipes_are_listed_by_table_with_what_was_published(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shipped / "lab").mkdir()
    head = (
        "# Row.\n#\n# Table:  Lab: one\n# Expect: 77.0 % top-1\n#         at 224 px; more\n# Cost:   8 V100 (paper)\n"
    )
    (shipped / "lab" / "row.yaml").write_text(head + "seed: 1\n")
    assert main.main(["recipes"]) == 0
    assert capsys.readouterr().out == (
        "fixres: the demo's photographs\n  cells      Solar cells, 96 px.\n  long-name\n\n"
        "Lab: one\n  lab/row    77.0 % top-1 at 224 px  8 V100\n"
    )
    assert main.main(["recipes", "lab"]) == 0
    assert capsys.readouterr().out == "Lab: one\n  lab/row  77.0 % top-1 at 224 px  8 V100\n"


def test_a_recipe_is_printed_as_it_is_written_or_with_every_default(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["recipes", "cells"]) == 0
    assert capsys.readouterr().out == (shipped / "cells.yaml").read_text()
    assert main.main(["recipes", "cells", "--full"]) == 0
    text = capsys.readouterr().out
    assert text == to_yaml(load("cells"), header="Solar cells, 96 px.")
    assert parse(text, "x").values["train"]["crop_scale"] == [0.08, 1.0]


def test_a_recipe_is_copied_as_it_is_written_and_never_over_a_file(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    assert main.main(["recipes", "cells", "--out", str(out)]) == 0
    assert out.read_bytes() == (shipped / "cells.yaml").read_bytes()
    assert main.main(["recipes", "long-name", "--out", str(out)]) == 2
    assert f"'{out}' exists" in capsys.readouterr().err
    assert out.read_bytes() == (shipped / "cells.yaml").read_bytes()
    assert main.main(["recipes", "--out", str(tmp_path / "x.yaml")]) == 2
    assert main.main(["recipes", "cels"]) == 2
    assert "did you mean 'cells'" in capsys.readouterr().err
