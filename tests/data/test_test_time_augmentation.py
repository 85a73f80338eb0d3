"""Test-time augmentation and spoiled pictures: what is seen, and that it is the same every time."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.data.splits import Split
from fixres.data.test_time_augmentation import Corruption, Tta, crops_of, make_view, parse_corruptions, views_at
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.evaluation.evaluate import Reading, evaluate, network_views
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime


def picture(width: int = 70, height: int = 50) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (50, 50)])
def test_five_crops_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    preprocess = Preprocess(32, 0.8)
    crops = crops_of(picture(*shape), make_view(preprocess, "five"), "a.jpg")
    top_left, top_right, bottom_left, bottom_right, centre = v2.Compose([v2.Resize(40), v2.FiveCrop(32)])(
        picture(*shape)
    )
    expected = [centre, top_left, top_right, bottom_left, bottom_right]
    for found, crop in zip(crops, expected, strict=True):
        difference = (found.int() - v2.functional.pil_to_tensor(crop).int()).abs()
        assert difference.max() <= (1 if crop is centre else 0)


def test_a_picture_with_no_room_for_corners_is_padded_like_the_centre() -> None:
    preprocess = Preprocess(64, 1.0, resize="height")
    narrow = crops_of(picture(30, 70), make_view(preprocess, "five"), "a.jpg")
    assert [tuple(crop.shape) for crop in narrow] == [(3, 64, 64)] * 5
    assert all(torch.equal(crop, narrow[0]) for crop in narrow)


@pytest.fixture(scope="module")
def split() -> Split:
    return open_collection(Data(uri="synthetic:classes=3,images=30,size=48")).split("val")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("test_resnet", 3, init="torch").eval()


@pytest.mark.parametrize(("tta", "num"), [("flip", 2), ("five", 5), ("ten", 10)])
def test_tta_is_the_mean_of_the_probabilities(model: torch.nn.Module, split: Split, tta: Tta, num: int) -> None:
    plain = Preprocess(32, 0.8)
    runtime = Runtime(RuntimeSettings(threads=1))
    found = evaluate(network_views(model, [make_view(plain, tta), plain]), split, runtime, Reading(4))
    for index in range(len(split)):
        crops = list(crops_of(split.read(index), make_view(plain, tta), ""))
        crops = crops if tta == "five" else [seen for crop in crops for seen in (crop, crop.flip(2))]
        assert len(crops) == num
        with torch.inference_mode():
            mean = model(normalise(torch.stack(crops), plain.mean, plain.std)).double().softmax(1).mean(0)
        assert found.predictions[0, index] == mean.argmax()
        assert found.probabilities[0, index] == pytest.approx(mean.max().item(), rel=1e-5)
        assert found.losses[0, index] == pytest.approx(-mean[split.labels[index]].log().item(), rel=1e-5)
    assert found.results[0]["tta"] == tta
    assert found.results[0]["gmacs"] == pytest.approx(num * found.results[1]["gmacs"])
    alone = evaluate(network_views(model, [plain]), split, runtime, Reading(4))
    assert alone.results[0]["loss"] == found.results[1]["loss"]


def test_corners_of_a_picture_that_is_seen_whole_are_refused() -> None:
    with pytest.raises(UserError, match="--tta five needs a picture larger than the crop"):
        make_view(Preprocess(32, resize="squash"), "five")


def test_corruptions_are_what_they_are_called() -> None:
    pixels = evaluation_crop(picture(), Preprocess(32)).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=30, subsampling=2)
    assert np.array_equal(Corruption("jpeg", 30).apply(pixels, 0), np.asarray(Image.open(buffer)))
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    noisy = Corruption("noise", 0.1).apply(grey, 7).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.3)
    assert noisy.std() == pytest.approx(25.5, rel=0.01)
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    spread = Corruption("blur", 2).apply(point, 0)[..., 0].astype(float)
    place = np.arange(41) - 20
    # Pillow's Gaussian is three box blurs on 8 bits.
    assert np.sqrt((spread.sum(0) * place**2).sum() / spread.sum()) == pytest.approx(2, rel=0.15)


def test_noise_belongs_to_the_picture_not_to_the_batch(model: torch.nn.Module, split: Split) -> None:
    views = views_at(Preprocess(32), (32, 48), "none", parse_corruptions("noise=0.1,blur=1"))
    runtime = Runtime(RuntimeSettings(threads=1))
    whole = evaluate(network_views(model, views), split, runtime, Reading(8))
    assert [result.get("corruption") for result in whole.results] == [None, "noise=0.1", "blur=1"] * 2
    again = evaluate(network_views(model, views), split, runtime, Reading(8, workers=2))
    assert np.array_equal(whole.losses, again.losses)
    part = split.take("val", np.array([4, 1]))
    some = evaluate(network_views(model, views), part, runtime, Reading(8))
    assert some.losses == pytest.approx(whole.losses[:, [4, 1]], rel=1e-4)
    assert (whole.losses[1] != whole.losses[0]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg=30", "did you mean 'jpeg'"),
        ("jpeg", "the strength of jpeg lies in 1 to 95"),
        ("jpeg=30.5", "the strength of jpeg"),
        ("noise=2", "the strength of noise lies in 0.001 to 1"),
        ("blur=nan", "the strength of blur"),
    ],
)
def test_a_corruption_that_makes_no_sense_is_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_corruptions(text)


def test_corruptions_by_commas() -> None:
    assert [str(c) for c in parse_corruptions("jpeg=30, blur=2.5,noise=0.1,jpeg=30")] == [
        "jpeg=30",
        "blur=2.5",
        "noise=0.1",
    ]
    assert parse_corruptions("") == ()
