"""The files other people released and we can fetch by name, and every address the package can contact. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fixres.errors import UserError, did_you_mean
from fixres.io.download.cache import checkpoint_folder, fetch
from fixres.io.download.transfer import Progress
from fixres.resolution import Interpolation

Triple = tuple[float, float, float]

NON_COMMERCIAL = "CC BY-NC 4.0"
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALVES: Triple = (0.5, 0.5, 0.5)
_CROP_OF_256 = 224 / 256
_CROP_OF_232 = 224 / 232


@dataclass(frozen=True)
class Released:
    """One file somebody published, and how its network wants to be fed."""

    name: str
    """What is typed after `fixres:`."""
    url: str
    architecture: str
    license: str
    train_size: int
    """Side in pixels the network was trained at."""
    test_size: int
    """Side in pixels at which the figures were published."""
    source: str
    """Where the figures come from."""
    sha256: str = ""
    """The first digits, at least eight, of the checksum; empty when none was published."""
    md5: str = ""
    """The same for MD5."""
    resize: Literal["shorter", "height"] = "shorter"
    """`height` where the published code resizes the height, whichever side is shorter."""
    crop_ratio: float = _CROP_OF_256
    interpolation: Interpolation = "bilinear"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    top1: float | None = None
    """Percent, as published; None where nothing was published for this very file."""
    top5: float | None = None
    num_classes: int = 1000
    """Outputs of the head in the file; 0 where it has none."""
    content: Literal["weights", "features"] = "weights"


@dataclass(frozen=True)
class Address:
    """A host the package can contact."""

    host: str
    commands: str
    """What has to be typed for it to be contacted."""
    purpose: str
    switch_off: str


_META_FILES = "https://dl.fbaipublicfiles.com/"
_FIXRES_WEIGHTS = f"{_META_FILES}FixRes_data/FixRes_Pretrained_Models/"
_FIXRES_FEATURES = f"{_META_FILES}FixRes_data/FixRes_Extracted_Features/"
_MOCO = f"{_META_FILES}moco/moco_checkpoints/"
_PYTORCH = "https://download.pytorch.org/models/"


def _fixres() -> list[Released]:
    rows: list[tuple[str, str, str, int, int, float, float]] = [
        ("ResNet50_baseline", "ResNet_no_adaptation.pth", "resnet50", 224, 224, 77.0, 93.4),
        ("FixResNet50", "ResNetFinetune.pth", "resnet50", 224, 384, 79.0, 94.6),
        ("FixResNet50_v2", "ResNet50_v2.pth", "resnet50", 224, 384, 79.1, 94.6),
        ("FixResNet50_CutMix", "ResNetCutMix.pth", "resnet50", 224, 320, 79.7, 94.9),
        ("FixResNet50_CutMix_v2", "ResNet50_CutMix_v2.pth", "resnet50", 224, 320, 79.8, 94.9),
        ("FixPNASNet5", "PNASNet.pth", "pnasnet5large_fixres", 331, 480, 83.7, 96.8),
        ("FixResNeXt101_32x48d", "ResNeXt_101_32x48d.pth", "resnext101_32x48d", 224, 320, 86.3, 97.9),
        ("FixResNeXt101_32x48d_v2", "ResNext101_32x48d_v2.pth", "resnext101_32x48d", 224, 320, 86.4, 98.0),
    ]
    return [
        Released(
            name=name,
            url=_FIXRES_WEIGHTS + file,
            architecture=architecture,
            license=NON_COMMERCIAL,
            train_size=train_size,
            test_size=test_size,
            resize="height",
            top1=top1,
            top5=top5,
            source="README of facebookresearch/FixRes",
            mean=HALVES if architecture.startswith("pnasnet") else IMAGENET_MEAN,
            std=HALVES if architecture.startswith("pnasnet") else IMAGENET_STD,
        )
        for name, file, architecture, train_size, test_size, top1, top5 in rows
    ]


def _features(weights: dict[str, Released]) -> list[Released]:
    """Return what the FixRes authors extracted from ImageNet's validation pictures: 50,000 rows per file.

    Softmax files have 1,000 columns, embeddings 2,048 (PNASNet 4,320), and there is one file of labels.
    """
    stems = {
        "ResNet50": "FixResNet50",
        "ResNet50CutMix": "FixResNet50_CutMix",
        "PNASNet": "FixPNASNet5",
        "IGAM_Resnext101_32x48d": "FixResNeXt101_32x48d",
    }
    found = [_feature("labels", weights["FixResNet50"], num_classes=0, top1=None)]
    for stem, name in stems.items():
        for version in ("", "_v2"):
            if name + version in weights:
                model = weights[name + version]
                found.append(_feature(f"{stem}_softmax{version}", model))
                found.append(_feature(f"{stem}_embedding{version}", model, num_classes=0, top1=None))
    return found


def _feature(stem: str, model: Released, **changes: Any) -> Released:
    url = f"{_FIXRES_FEATURES}{stem}.npy"
    return replace(model, name=f"features_{stem}", url=url, top5=None, content="features", **changes)


def _weakly_supervised() -> list[Released]:
    rows = [(8, "c38310e5", 82.2, 96.4), (16, "c6f796b0", 84.2, 97.2), (32, "e4b90b00", 85.1, 97.5)]
    rows.append((48, "3e41cc8a", 85.4, 97.6))
    return [
        Released(
            name=f"resnext101_32x{width}d_wsl",
            url=f"{_PYTORCH}ig_resnext101_32x{width}-{digits}.pth",
            architecture=f"resnext101_32x{width}d",
            license=NON_COMMERCIAL,
            train_size=224,
            test_size=224,
            sha256=digits,
            top1=top1,
            top5=top5,
            source="README of facebookresearch/WSL-Images",
        )
        for width, digits, top1, top5 in rows
    ]


def _moco() -> list[Released]:
    # The published accuracies are those of a linear probe trained later, which the files do not hold.
    rows = [("v1_200ep", "b251726a", 60.6), ("v2_200ep", "59fd9945", 67.7), ("v2_800ep", "a04e12f8", 71.1)]
    return [
        Released(
            name=f"moco_{run}",
            url=f"{_MOCO}moco_{run}/moco_{run}_pretrain.pth.tar",
            architecture="resnet50",
            license=NON_COMMERCIAL,
            train_size=224,
            test_size=224,
            md5=md5,
            num_classes=0,
            source=f"README of facebookresearch/moco (a linear probe on these features: {probe} % top-1)",
        )
        for run, md5, probe in rows
    ]


def _torchvision() -> list[Released]:
    rows: list[tuple[str, str, str, int, float, float]] = [
        ("resnet18", "v1", "f37072fd", 224, 69.758, 89.078),
        ("resnet50", "v1", "0676ba61", 224, 76.13, 92.862),
        ("resnet50", "v2", "11ad3fa6", 176, 80.858, 95.434),
        ("resnext50_32x4d", "v1", "7cdf4587", 224, 77.618, 93.698),
        ("resnext50_32x4d", "v2", "1a0047aa", 176, 81.198, 95.34),
        ("resnext101_32x8d", "v1", "8ba56ff5", 224, 79.312, 94.526),
        ("resnext101_32x8d", "v2", "110c445d", 176, 82.834, 96.228),
        ("resnext101_64x4d", "v1", "173b62eb", 176, 83.246, 96.454),
    ]
    return [
        Released(
            name=f"torchvision_{architecture}_{version}",
            url=f"{_PYTORCH}{architecture}-{digits}.pth",
            architecture=architecture,
            license="BSD-3-Clause (code); trained on ImageNet",
            train_size=train_size,
            test_size=224,
            sha256=digits,
            # What was trained at 176 px is fed a 224 px crop of 232, torchvision's own answer to the discrepancy.
            crop_ratio=_CROP_OF_232 if train_size == 176 else _CROP_OF_256,
            top1=top1,
            top5=top5,
            source="weight enums of torchvision.models",
        )
        for architecture, version, digits, train_size, top1, top5 in rows
    ]


def _pnasnet() -> Released:
    return Released(
        name="pnasnet5large_cadene",
        url="http://data.lip6.fr/cadene/pretrainedmodels/pnasnet5large-bf079911.pth",
        # Its authors' network, whose padding timm's port changed.
        architecture="pnasnet5large_fixres",
        license="BSD-3-Clause (code); weights ported from TensorFlow's models, Apache-2.0",
        train_size=331,
        test_size=331,
        sha256="bf079911",
        num_classes=1001,
        source="Cadene/pretrained-models.pytorch; the first of the 1001 classes is the background",
        mean=HALVES,
        std=HALVES,
    )


def _table() -> dict[str, Released]:
    fixres = {entry.name: entry for entry in _fixres()}
    others = [*_weakly_supervised(), *_moco(), *_torchvision(), _pnasnet(), *_features(fixres)]
    return fixres | {entry.name: entry for entry in others}


RELEASED: dict[str, Released] = _table()


def find_released(name: str) -> Released:
    """Return the released file called `name`; upper and lower case are equal, and so are '-' and '_'.

    Raises:
        UserError: there is none; lists those there are.
    """
    folded = {_fold(known): entry for known, entry in RELEASED.items()}
    if _fold(name) in folded:
        return folded[_fold(name)]
    weights, features = (
        [entry.name for entry in RELEASED.values() if entry.content == content] for content in ("weights", "features")
    )
    # The features are many and rarely meant: in full only for those who seem to look for them.
    listed = ", ".join(features) if _fold(name).startswith("feature") else f"{features[0]} and {len(features) - 1} more"
    raise UserError(
        f"no released file is called '{name}'{did_you_mean(name.strip().replace('-', '_'), RELEASED)}\n"
        f"  weights: {', '.join(weights)}\n  features: {listed}"
    )


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_")


_BY_NAME = "any command given `fixres:NAME`"
_NO_FETCHING = "`FIXRES_OFFLINE=1` or `HF_HUB_OFFLINE=1`; or name no such source"
_NO_SETS = "`FIXRES_OFFLINE=1` or `HF_HUB_OFFLINE=1`; or do not type it"

ADDRESSES: tuple[Address, ...] = (
    Address(
        "dl.fbaipublicfiles.com",
        f"{_BY_NAME}; a recipe with `model.weights: pretrained` for four networks of timm",
        "weights and features of FixRes, weights of MoCo",
        f"{_NO_FETCHING}; for the recipe `model.weights: none`, or a file",
    ),
    Address(
        "download.pytorch.org",
        f"{_BY_NAME}; a recipe with `model.weights: pretrained` for `resnext101_32x48d`",
        "weights of torchvision and of the weakly supervised ResNeXt",
        f"{_NO_FETCHING}; for the recipe `model.weights: none`, or a file",
    ),
    Address(
        "data.lip6.fr",
        "any command given `fixres:pnasnet5large_cadene`",
        "the PNASNet-5-Large that FixRes starts from; plain http, the only way it is served, so checked by its hash",
        _NO_FETCHING,
    ),
    Address(
        "huggingface.co",
        "any command given `hf-hub:NAME` or `timm:NAME`, or a recipe with `model.weights: pretrained`",
        "models on the hub, which is where most of timm's weights are",
        "`HF_HUB_OFFLINE=1`; or name no such source",
    ),
    Address(
        "github.com",
        "a recipe with `model.weights: pretrained`, or `timm:NAME`, for some fifteen networks of timm",
        "weights that timm keeps with its releases",
        "`model.weights: none`, or a file",
    ),
    *(
        Address(host, " or ".join(f"`fixres data download {name}`" for name in names.split()), purpose, _NO_SETS)
        for host, names, purpose in (
            ("data.caltech.edu", "caltech101 caltech256 cub-200-2011", "Caltech-101 and -256, birds of CUB"),
            ("www.cs.toronto.edu", "cifar10 cifar100", "CIFAR"),
            ("ossci-datasets.s3.amazonaws.com", "mnist", "MNIST"),
            ("fashion-mnist.s3.eu-central-1.amazonaws.com", "fashion-mnist", "Fashion-MNIST"),
            ("www.robots.ox.ac.uk", "flowers102 oxford-pets fgvc-aircraft", "Oxford's flowers, pets and aircraft"),
            ("data.vision.ee.ethz.ch", "food101", "Food-101"),
            ("cs231n.stanford.edu", "tiny-imagenet-200", "Tiny-ImageNet"),
        )
    ),
    Address(
        "the host you name",
        "any command given `url:https://...`",
        "a weights file of your own choice",
        _NO_FETCHING,
    ),
    Address(
        "the host you name",
        "data `wds:https://...`, `wds:s3://...` and the like",
        "shards of your own choice, read in pieces",
        "name no such source",
    ),
)
"""Every host the package can contact. docs/network.md is made from it."""


def fetch_released(name: str, progress: Progress | None = None, folder: Path | None = None) -> tuple[Path, Released]:
    """Fetch the released file called `name` into `folder` and return its path and what is known about it.

    Raises:
        UserError: no such name, or it cannot be had.
    """
    entry = find_released(name)
    # `labels.npy` says little among other people's weights.
    if folder is None and entry.content == "features":
        folder = checkpoint_folder() / "fixres_features"
    return fetch(entry.url, sha256=entry.sha256, md5=entry.md5, folder=folder, progress=progress), entry
