"""Names and probabilities: every form a picture comes in, bad ones among them, and folders in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.checkpoints.product import Product
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.inference.predict import Pictures, Predictor
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime


@pytest.fixture(scope="module")
def product() -> Product:
    torch.manual_seed(0)
    model = build_model("test_resnet", 4, init="torch").eval()
    return Product(model, "test_resnet", ("a", "b", "c", "d"), Preprocess(32), 32, "raw", {}, True, {}, "memory")


@pytest.fixture(scope="module")
def predictor(product: Product) -> Predictor:
    return Predictor(product, Runtime(RuntimeSettings(threads=1)), top_k=3, batch_size=4)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 70, 3), dtype=np.uint8))


def test_every_form_a_picture_comes_in_gives_one_answer(predictor: Predictor, tmp_path: Path) -> None:
    image = picture()
    path = tmp_path / "p.png"
    image.save(path)
    forms = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    answers = {p.top for p in predictor(forms)}
    assert len(answers) == 1


def test_probabilities_are_those_of_the_network(predictor: Predictor, product: Product) -> None:
    (found,) = predictor([picture()])
    images = normalise(
        evaluation_crop(picture(), product.preprocess)[None], product.preprocess.mean, product.preprocess.std
    )
    with torch.inference_mode():
        expected = product.model(images).softmax(1)[0]
    for name, probability in found.top:
        assert probability == pytest.approx(expected[product.classes.index(name)].item(), abs=1e-6)
    assert [p for _, p in found.top] == sorted((p for _, p in found.top), reverse=True)
    assert len(found.top) == 3


def test_one_bad_picture_does_not_stop_the_others(predictor: Predictor, tmp_path: Path) -> None:
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.jpg")
    (tmp_path / "2.jpg").write_text("no picture")
    (tmp_path / "4.jpg").write_bytes((tmp_path / "4.jpg").read_bytes()[:300])
    found = list(predictor(sorted(tmp_path.iterdir())))
    assert [bool(p.error) for p in found] == [False, False, True, False, True, False]
    assert found[2].as_dict()["error"]
    alone = next(iter(predictor([tmp_path / "5.jpg"])))
    assert [name for name, _ in found[5].top] == [name for name, _ in alone.top]
    # On some processors the last bits of a logit depend on its place in the batch.
    assert [p for _, p in found[5].top] == pytest.approx([p for _, p in alone.top], rel=1e-5)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(3, np.uint8)])
def test_arrays_that_are_no_pictures_are_errors(predictor: Predictor, array: np.ndarray) -> None:
    (found,) = predictor([array])
    assert "is no picture" in found.error


def test_a_folder_is_walked_in_order_and_an_empty_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.JPG", "b/1.png", "a.jpeg"):
        picture().convert("L").save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("x")
    names = [Path(p).name for p in Pictures([str(tmp_path)])]
    assert names == ["a.jpeg", "1.png", "2.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in"):
        Pictures([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="no such file or folder"):
        Pictures([str(tmp_path / "missing.jpg")])
