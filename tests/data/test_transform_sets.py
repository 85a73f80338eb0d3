"""The published sets of transforms by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import fixres
from fixres.data.transform_sets import View
from fixres.errors import UserError
from tests.support.pictures import ramp, smooth

GOLDEN = Path(__file__).parents[1] / "golden" / "fixres_height_resize.npz"


@pytest.mark.parametrize("kind", ["torch", "full", "v1", "v2", "resnext", "cifar"])
def test_every_kind_gives_normalised_squares_and_can_be_sent_to_workers(kind: str) -> None:
    made = fixres.get_transforms(kind, 64, test_size=96)
    assert list(made) == (["train", "val_train", "val_test"] if kind == "v2" else ["train", "val"])
    for name, view in made.items():
        sent = pickle.loads(pickle.dumps(view))
        size = 96 if name != "train" or kind == "v1" else 64
        for image in (smooth(120, 90), smooth(90, 120).convert("L"), smooth(50, 50).convert("RGBA")):
            torch.manual_seed(5)
            first = view(image)
            torch.manual_seed(5)
            assert torch.equal(first, sent(image))
            assert (first.shape, first.dtype) == ((3, size, size), torch.float32)
        random = name == "val_train" or (name == "train" and kind != "v1")
        assert (not torch.equal(view(smooth(120, 90)), view(smooth(120, 90)))) == random


def test_the_test_time_view_is_torchvisions() -> None:
    image = smooth(301, 207)
    chain = v2.Compose([v2.Resize(109), v2.CenterCrop(96), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    for kind, key in (("torch", "val"), ("full", "val"), ("v1", "train"), ("v2", "val_test"), ("resnext", "val")):
        view = fixres.get_transforms(kind, 96, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))[key](image)
        expected = v2.functional.normalize(chain(image), [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
        assert (view - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_resize_by_height_gives_the_pixels_of_the_code_of_fixres(kind: str) -> None:
    golden = np.load(GOLDEN)
    view = fixres.get_transforms(kind, 64, resize="height")["val" if kind == "v1" else "val_test"]
    expected = torch.from_numpy(golden["image3_size64_rows30to34_imagenet"])
    assert (view(Image.fromarray(golden["image3"]))[:, 30:34] - expected).abs().max() <= 2e-6


def levels(view: View, image: Image.Image, num: int) -> torch.Tensor:
    """Return views in levels, uint8 `[num, 3, S, S]`."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (view.preprocess.mean, view.preprocess.std))
    return torch.stack([((view(image) * std + mean) * 255).round().to(torch.uint8) for _ in range(num)])


def test_the_kinds_differ_as_published() -> None:
    torch.manual_seed(0)
    grey = Image.new("RGB", (64, 64), (100, 100, 100))
    strength = {}
    for kind, key in (("torch", "train"), ("full", "train"), ("v2", "val_train")):
        strength[kind] = levels(fixres.get_transforms(kind, 32)[key], grey, 200).float().mean(dim=(1, 2, 3))
    assert strength["torch"].unique().tolist() == [100]
    assert (strength["full"].min() < 75, strength["full"].max() > 125) == (True, True)
    assert (94 <= strength["v2"].min() < 97, 103 < strength["v2"].max() <= 106) == (True, True)
    rotated = levels(fixres.get_transforms("resnext", 32)["train"], Image.new("RGB", (64, 64), "white"), 60)
    assert ((rotated == 0).all(dim=1).flatten(1).any(dim=1).float().mean()) > 0.8


def test_cifar_pads_by_four_and_tests_the_picture_itself() -> None:
    image, made = ramp(32, 32), fixres.get_transforms("cifar", 32)
    assert made["val"].preprocess.mean == (0.4914, 0.4822, 0.4465)
    assert torch.equal(levels(made["val"], image, 1)[0], v2.functional.pil_to_tensor(image))
    torch.manual_seed(0)
    shifts = set()
    for view in levels(made["train"], image, 800):
        is_flipped = view[0, 16, 10] > view[0, 16, 20]
        middle = (view.flip(2) if is_flipped else view)[:2, 16, 16]
        shifts.add(tuple((middle.int() - 16).tolist()))
    assert {x for x, _ in shifts} == {y for _, y in shifts} == set(range(-4, 5))


def test_an_unknown_kind_lists_them() -> None:
    with pytest.raises(UserError, match=r"'ful' - did you mean 'full'\?\n  kinds: torch, full, v1, v2, resnext, cifar"):
        fixres.get_transforms("ful")


def test_the_call_of_the_readme_of_fixres_works_as_it_stands() -> None:
    made = fixres.get_transforms(
        input_size=64, test_size=96, kind="full", crop=True, need=("train", "val"), backbone=None
    )
    assert list(made) == ["train", "val", "val_train", "val_test"]
    image = smooth(90, 160)
    assert {name: view(image).shape[-1] for name, view in made.items()} == {
        "train": 64, "val": 96, "val_train": 96, "val_test": 96,
    }  # fmt: skip
    v2 = fixres.get_transforms("v2", 64, test_size=96, resize="height")
    assert torch.equal(made["val_test"](image), v2["val_test"](image))
    assert torch.equal(made["val"](image), v2["val_test"](image))
    for name in ("train", "val_train"):
        torch.manual_seed(3)
        theirs = made[name](image)
        torch.manual_seed(3)
        assert torch.equal(theirs, v2[name](image)), name


def test_fixres_own_words_choose_transforms_and_normalisation() -> None:
    assert list(fixres.get_transforms(input_size=64, need=["train"])) == ["train"]
    assert list(fixres.get_transforms(input_size=64, need=("val",))) == ["val", "val_train", "val_test"]
    assert list(fixres.get_transforms("v2", 64, need=("val",))) == ["val_train", "val_test"]
    halves = fixres.get_transforms(input_size=64, backbone="pnasnet5large")["train"].preprocess
    assert (halves.mean, halves.std, halves.resize) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "height")
    assert fixres.get_transforms(input_size=64, backbone="resnet50")["train"].preprocess.mean[0] == 0.485
    # Without their words everything is as before.
    assert list(fixres.get_transforms("full", 64)) == ["train", "val"]
    assert fixres.get_transforms("v2", 224)["val_test"].preprocess.resize == "shorter"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 224, "input_size": 224}, r"size 224 and input_size 224 are two names of one thing"),
        ({"input_size": 224, "crop": False}, r"crop=False gives pictures of unequal sizes"),
        ({"input_size": 224, "need": ("train", "test")}, r"need=\('train', 'test'\): a list of train and val"),
        ({"input_size": 224, "need": "train"}, r"need='train': a list of train and val is expected"),
        ({"inputsize": 224}, r"unknown argument 'inputsize' - did you mean 'input_size'\?"),
        ({"kind": 224}, r"the sizes come by name here\n  get_transforms\(input_size=224"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fixres.get_transforms(**arguments)
