"""The table of released files agrees with where its rows come from."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

import pytest
import torchvision

from fixres.data.prepare.known_sets import SETS
from fixres.errors import UserError
from fixres.models.names import architecture_names
from fixres.models.released import ADDRESSES, RELEASED, Released, find_released
from fixres.resolution import Preprocess

ENTRIES = [pytest.param(entry, id=name) for name, entry in RELEASED.items()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_row_is_complete(entry: Released) -> None:
    parts = urlsplit(entry.url)
    assert parts.hostname in {address.host for address in ADDRESSES}
    assert entry.license
    assert entry.source
    assert entry.train_size <= entry.test_size
    assert entry.architecture in architecture_names()
    for digits in (entry.sha256, entry.md5):
        assert re.fullmatch(r"|[0-9a-f]{8,64}", digits)
    if parts.scheme == "http":
        assert entry.sha256, "plain http needs a checksum"
    in_name = re.search(r"-([0-9a-f]{8})\.pth$", parts.path)
    assert entry.sha256 == (in_name[1] if in_name else "")
    if entry.top1 is not None and entry.top5 is not None:
        assert entry.top1 < entry.top5 < 100


def test_no_address_is_listed_without_use() -> None:
    used = {urlsplit(entry.url).hostname for entry in RELEASED.values()} | {
        "huggingface.co",
        "github.com",
        "the host you name",
    }
    sets = {
        (urlsplit(file.url).hostname, f"`fixres data download {name}`")
        for name, info in SETS.items()
        for file in info.files.values()
        if file.url
    }
    used |= {host for host, _ in sets if host}
    assert [address.host for address in ADDRESSES if address.host not in used] == []
    commands = {address.host: address.commands for address in ADDRESSES}
    assert [(host, command) for host, command in sets if command not in commands.get(host or "", "")] == []
    assert len({entry.url for entry in RELEASED.values()}) == len(RELEASED)


@pytest.mark.parametrize("entry", [p for p in ENTRIES if str(p.id).startswith("torchvision_")])
def test_torchvisions_rows_are_torchvisions(entry: Released) -> None:
    weights = next(w for w in torchvision.models.get_model_weights(entry.architecture) if w.url == entry.url)
    assert entry.name == f"torchvision_{entry.architecture}_{weights.name[-2:].lower()}"
    metrics = weights.meta["_metrics"]["ImageNet-1K"]
    assert (entry.top1, entry.top5) == (metrics["acc@1"], metrics["acc@5"])
    transforms = weights.transforms()
    assert [entry.test_size] == transforms.crop_size
    assert [Preprocess(entry.test_size, entry.crop_ratio).resize_size] == transforms.resize_size
    assert transforms.interpolation.value == entry.interpolation
    assert (list(entry.mean), list(entry.std)) == (transforms.mean, transforms.std)


@pytest.mark.parametrize("entry", [p for p in ENTRIES if "FixRes_data" in p.values[0].url])
def test_what_fixres_released_is_fed_as_fixres_feeds_it(entry: Released) -> None:
    assert entry.resize == "height"
    assert Preprocess(entry.test_size, entry.crop_ratio).resize_size == math.floor(256 / 224 * entry.test_size)
    is_pnasnet = entry.architecture == "pnasnet5large_fixres"
    assert entry.mean == entry.std if is_pnasnet else entry.mean == (0.485, 0.456, 0.406)
    assert entry.train_size == (331 if is_pnasnet else 224)
    assert entry.license == "CC BY-NC 4.0"


def test_features_come_in_three_kinds() -> None:
    features = [entry for entry in RELEASED.values() if entry.content == "features"]
    kinds = {"labels": 1, "softmax": 7, "embedding": 7}
    assert {kind: sum(kind in entry.url for entry in features) for kind in kinds} == kinds
    assert all((entry.top1 is not None) == ("softmax" in entry.name) == (entry.num_classes > 0) for entry in features)
    assert RELEASED["features_IGAM_Resnext101_32x48d_softmax_v2"].top1 == RELEASED["FixResNeXt101_32x48d_v2"].top1


@pytest.mark.parametrize("name", ["FixResNet50_v2", "fixresnet50-V2", " FIXRESNET50_V2 "])
def test_names_are_found_in_any_case(name: str) -> None:
    assert find_released(name) is RELEASED["FixResNet50_v2"]


def test_no_two_names_are_equal_but_for_case() -> None:
    assert len({name.lower().replace("-", "_") for name in RELEASED}) == len(RELEASED)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'FixResNet50v2' - did you mean 'FixResNet50_v2'\?") as caught:
        find_released("FixResNet50v2")
    assert all(name in str(caught.value) for name, entry in RELEASED.items() if entry.content == "weights")
    with pytest.raises(UserError) as caught:
        find_released("features_nothing")
    assert all(name in str(caught.value) for name in RELEASED)
