"""What a word names: a shipped recipe first, then a file, then a folder or a data URI."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fixres.cli.subject import Subject, what_is


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with one of everything."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "elpv-demo", "run", "model", "old/model"):
        Path(folder).mkdir(parents=True)
    Path("run/recipe.yaml").write_text("")
    Path("model/config.json").write_text("")
    Path("old/model/config.json").write_text("")
    Path("my.yaml").write_text("")
    Path("recipe-without-ending").write_text("")
    Path("labels.CSV").write_text("path,label\n")
    Image.new("RGB", (4, 3)).save("x.png")


@pytest.mark.parametrize(
    ("word", "subject"),
    [
        ("elpv-demo", "recipe"),
        ("./elpv-demo", "pictures"),
        ("elpv-demo/", "pictures"),
        ("my.yaml", "recipe"),
        ("recipe-without-ending", "recipe"),
        ("photos", "pictures"),
        ("labels.CSV", "pictures"),
        ("csv:labels.CSV?root=photos", "pictures"),
        ("folder:photos", "pictures"),
        ("synthetic:", "pictures"),
        ("elpv:", "pictures"),
        ("hf:some/set", "pictures"),
        ("hf-hub:timm/resnet18", "nothing"),
        ("timm:resnet18", "nothing"),
        ("package:efficientnet-lite0", "nothing"),
        ("run", "run"),
        ("model", "run"),
        ("old", "run"),
        ("x.png", "picture"),
        ("photoz", "nothing"),
        ("missing.yaml", "nothing"),
        ("", "nothing"),
    ],
)
def test_a_word_names_one_thing(word: str, subject: Subject) -> None:
    assert what_is(word) == subject
