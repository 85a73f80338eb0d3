"""`fixres data preview`: the contact sheet against the loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.loader import Draw, ReadPolicy, train_batches
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.training import preview as preview_module
from fixres.training.initial_weights import starting_network
from fixres.training.preview import preview
from tests.support.command_line import Run


def test_preview_draws_what_the_recipe_trains_on(fixres: Run, photos: Path) -> None:
    Path("my.yaml").write_text(f"data: {{uri: 'folder:{photos}'}}\nmodel: {{name: test_resnet}}\ntrain: {{size: 32}}\n")
    code, out, err = fixres("data", "preview", "--recipe", "my.yaml", "--out", "a.png", "--count", 2, "--sizes", 32, 48)
    assert (code, out) == (0, "a.png\n")
    assert "random crop at 32 px" in err
    with Image.open("a.png") as sheet:
        assert sheet.format == "PNG"
    first = Path("a.png").read_bytes()
    assert fixres("data", "preview", photos, "--recipe", "my.yaml", "--out", "a.png", "--count", 2, "--quiet")[0] == 0
    assert Path("a.png").read_bytes() != first, "without --sizes only the train size is drawn"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "a.jpg"), "--out a.png"),
        (("--out", "a.png"), "no data"),
        (("synthetic:classes=3", "--out", "a.png", "--sizes", "50000"), "sheet would have"),
        (("synthetic:classes=3", "--out", "a.png", "--recipe", "elpv-dmo"), "elpv-demo"),
    ],
)
def test_preview_refuses(fixres: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = fixres("data", "preview", *words)
    assert code == 2
    assert said in err
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    "augment",
    [
        {"policy": "jitter"},
        {"policy": "flip", "crop": "pad"},
        {"policy": "flip", "crop": "center"},
    ],
    ids=["one by one", "held in memory if square", "held in memory"],
)
def test_the_sheet_shows_the_very_pixels_of_training(
    make_recipe: Callable[..., Recipe], photos: Path, monkeypatch: pytest.MonkeyPatch, augment: dict[str, Any]
) -> None:
    recipe = make_recipe(data={"uri": str(photos)}, augment=augment, train={"size": 48, "epochs": 3, "batch_size": 8})
    drawn: dict[str, list[np.ndarray]] = {}

    def remember(titles: Any, rows: Any, cell: int) -> Image.Image:
        for caption, cells in rows:
            drawn[caption.split("   ")[2]] = [np.asarray(each) for each in cells[1:] if each is not None]
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("fixres.training.preview._sheet", remember)
    preview(recipe, sizes=(48, 96), count=4, views=3)
    assert len(drawn) == 4
    collection = open_collection(recipe.data)
    split = collection.split("train")
    model = starting_network(recipe, collection).preprocess.at(48)
    seen: dict[str, list[np.ndarray]] = {}
    batches = train_batches(
        split,
        recipe.train,
        model,
        Draw(recipe.seed, 0),
        ReadPolicy(decode=recipe.data.decode, hold_gib=recipe.data.hold_gib),
    )
    for batch in batches:
        for view, index in zip(batch.images, batch.indices.tolist(), strict=True):
            seen.setdefault(split.paths[index], []).append(view.permute(1, 2, 0).numpy())
    for path, cells in drawn.items():
        # The last part of an epoch is dropped in training, and shown or left out here.
        views = cells[:-2]
        assert len(seen[path]) >= 2
        assert all(any((view == cell).all() for cell in views) for view in seen[path]), path
        index = list(split.paths).index(path)
        test = evaluation_crop(split.read(index), model.at(96)).permute(1, 2, 0).numpy()
        assert (cells[-1] == test).all()


@pytest.mark.parametrize("crop", ["random", "center"])
def test_an_unreadable_picture_keeps_its_place_and_says_why(
    make_recipe: Callable[..., Recipe], photos: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    augment = {"policy": "flip", "crop": crop}
    recipe = make_recipe(data={"uri": str(photos)}, train={"batch_size": 4, "size": 48}, augment=augment)
    drawn: list[Any] = []
    plain = preview_module._sheet
    monkeypatch.setattr(
        preview_module, "_sheet", lambda titles, rows, cell: drawn.append(rows) or plain(titles, rows, cell)
    )
    whole = preview(recipe, sizes=(32, 48), count=6, views=1)
    rows = drawn.pop()
    captions = [caption for caption, _ in rows]
    tests = [note for note in whole.notes if note.startswith("test: ")]
    assert [note.split(",")[0] for note in tests] == ["test: 32 px", "test: 48 px"]
    victim = captions[2].split("   ")[-1]
    (photos / victim).write_bytes(b"nothing")
    sheet = preview(recipe, sizes=(32, 48), count=6, views=1)
    broken = drawn.pop()
    assert [caption.split("   ")[-1] for caption, _ in broken] == [caption.split("   ")[-1] for caption in captions]
    assert "unreadable" in broken[2][0]
    assert broken[2][1] == ["not a picture in any format that can be read", None, None, None]
    for k in (0, 1, 3, 4, 5):
        same = [one == other for one, other in zip(rows[k][1], broken[k][1], strict=True)]
        # A split with a bad picture is not held in memory, where flips are drawn in another way.
        assert all(same) or (crop == "center" and same == [True, False, True, True])
    assert "1 of the 6 pictures drawn cannot be read: fixres data check names all" in sheet.notes


def test_no_readable_picture_is_an_error(make_recipe: Callable[..., Recipe], photos: Path) -> None:
    for path in (photos / "train").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of the 2 pictures drawn"):
        preview(make_recipe(data={"uri": str(photos)}, train={"batch_size": 4}), count=2, views=1)
