"""`torchvision:NAME[?root=DIR&download=true&variant=V]` - the data sets torchvision knows, read by our own decoder.

torchvision finds and checks the files; pictures that are files are decoded like any other, pictures that are arrays
are kept in memory as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.sources.folder import Files
from fixres.data.sources.uri import Grammar, Scheme
from fixres.data.splits import Names, Source, Split
from fixres.errors import UserError, did_you_mean, require_extra
from fixres.resolution import Alpha, Exif

_TRUE_TEST: Mapping[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_OFFLINE_VARIABLES = ("FIXRES_OFFLINE", "HF_HUB_OFFLINE")


def _named(*splits: str, **others: str) -> Mapping[str, Mapping[str, Any]]:
    """Return our split names with torchvision's `split` argument; `val="valid"` where they differ."""
    return {name: {"split": value} for name, value in (*((s, s) for s in splits), *others.items())}


def _variants(argument: str, *values: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return values of `variant` with the argument of torchvision's that each stands for."""
    return {str(value): {argument: value} for value in values}


def _attributes(paths: str, labels: str) -> Callable[[Any], tuple[Any, Any]]:
    return lambda dataset: (getattr(dataset, paths), getattr(dataset, labels))


def _pairs(attribute: str) -> Callable[[Any], tuple[Any, Any]]:
    def take(dataset: Any) -> tuple[Any, Any]:
        pairs = getattr(dataset, attribute)
        return [path for path, _ in pairs], [label for _, label in pairs]

    return take


def _caltech(folder: str, name: str) -> Callable[[Any], tuple[Any, Any]]:
    def take(dataset: Any) -> tuple[Any, Any]:
        pairs = zip(dataset.y, dataset.index, strict=True)
        root = Path(dataset.root) / folder
        return [root / dataset.categories[y] / name.format(y=y + 1, index=i) for y, i in pairs], dataset.y

    return take


def _inaturalist(dataset: Any) -> tuple[Any, Any]:
    # Listed in the order of the disk, which is no order.
    index = sorted(dataset.index)
    root = Path(dataset.root)
    return [root / dataset.all_categories[label] / name for label, name in index], [label for label, _ in index]


def _gtsrb(dataset: Any) -> tuple[Any, Any]:
    # Training folders are called by their class; torchvision counts them, which is wrong as soon as one is missing.
    pairs = [(Path(path), label) for path, label in dataset._samples]
    folders = [path.parent.name for path, _ in pairs]
    labels = [int(f) if f.isdecimal() else label for f, (_, label) in zip(folders, pairs, strict=True)]
    return [path for path, _ in pairs], labels


def _first_names(dataset: Any) -> Sequence[str]:
    return [names[0] for names in dataset.classes]


@dataclass(frozen=True)
class Known:
    """One data set of torchvision: how its splits, pictures and class names are had."""

    cls: str
    splits: Mapping[str, Mapping[str, Any]]
    """Our name of a split -> what the class is called with."""
    samples: Callable[[Any], tuple[Any, Any]]
    """Paths, or an array of pictures, and labels."""
    classes: str | Callable[[Any], Sequence[str]] | tuple[str, ...] = "classes"
    needs: tuple[str, ...] = ()
    """Packages of the extra `sets`."""
    layout: str = "NHWC"
    """Of arrays; NHW is grey."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Value of `variant` -> what the class is called with; the first is the default."""
    no_download: str = ""
    """Why it cannot be downloaded, and where its files belong."""


_ALL: Mapping[str, Mapping[str, Any]] = {"all": {}}
_TRAIN_TEST, _ALL_THREE = _named("train", "test"), _named("train", "val", "test")
_BY_YEAR: Mapping[str, Mapping[str, Any]] = {"train": {}, "val": {"version": "2021_valid"}}
_FILES = _attributes("_image_files", "_labels")
_ARRAY = _attributes("data", "targets")
_SCIPY = ("scipy",)
_LAYOUTS = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 2, 3, 1), "NHW": (0, 1, 2), "NWH": (0, 2, 1)}
_DIGITS = tuple("0123456789")
_EMNIST = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")
_AIRCRAFT = ("variant", "family", "manufacturer")
_IMAGENETTE = _variants("size", "full", "320px", "160px")
_INATURALIST = ("2021_train", "2021_train_mini", "2017", "2018", "2019")
_PLACES = {"large": {"small": False}, "small": {"small": True}}
_NO_CARS = (
    "its address is gone; put cars_train/, cars_test/, cars_test_annos_withlabels.mat and devkit/ "
    "into {root}/stanford_cars"
)

SETS: dict[str, Known] = {
    known.cls: known
    for known in (
        Known("CIFAR10", _TRUE_TEST, _ARRAY),
        Known("CIFAR100", _TRUE_TEST, _ARRAY),
        Known("MNIST", _TRUE_TEST, _ARRAY, layout="NHW"),
        Known("FashionMNIST", _TRUE_TEST, _ARRAY, layout="NHW"),
        Known("KMNIST", _TRUE_TEST, _ARRAY, layout="NHW"),
        Known("EMNIST", _TRUE_TEST, _ARRAY, layout="NWH", variants=_variants("split", *_EMNIST)),
        Known("SVHN", _TRAIN_TEST, _attributes("data", "labels"), _DIGITS, _SCIPY, "NCHW"),
        Known("STL10", _TRAIN_TEST, _attributes("data", "labels"), layout="NCHW"),
        Known("Caltech101", _ALL, _caltech("101_ObjectCategories", "image_{index:04d}.jpg"), "categories"),
        Known("Caltech256", _ALL, _caltech("256_ObjectCategories", "{y:03d}_{index:04d}.jpg"), "categories"),
        Known("StanfordCars", _TRAIN_TEST, _pairs("_samples"), needs=_SCIPY, no_download=_NO_CARS),
        Known("Flowers102", _ALL_THREE, _FILES, needs=_SCIPY),
        Known("OxfordIIITPet", _named("test", train="trainval"), _attributes("_images", "_labels")),
        Known("Food101", _TRAIN_TEST, _FILES),
        Known("FGVCAircraft", _ALL_THREE, _FILES, variants=_variants("annotation_level", *_AIRCRAFT)),
        Known("DTD", _ALL_THREE, _FILES, variants=_variants("partition", *range(1, 11))),
        Known("EuroSAT", _ALL, _pairs("samples")),
        Known("SUN397", _ALL, _FILES),
        Known("GTSRB", _TRAIN_TEST, _gtsrb, tuple(str(number) for number in range(43))),
        Known("Imagenette", _named("train", "val"), _pairs("_samples"), _first_names, variants=_IMAGENETTE),
        Known("INaturalist", _BY_YEAR, _inaturalist, "all_categories", variants=_variants("version", *_INATURALIST)),
        Known("Places365", _named("val", train="train-standard"), _pairs("imgs"), variants=_PLACES),
        Known("Country211", _named("train", "test", val="valid"), _pairs("samples")),
        Known("RenderedSST2", _ALL_THREE, _pairs("_samples")),
    )
}
ALIASES = {
    "oxfordpets": "OxfordIIITPet",
    "pets": "OxfordIIITPet",
    "flowers": "Flowers102",
    "cars": "StanfordCars",
    "aircraft": "FGVCAircraft",
    "inat": "INaturalist",
    "inaturalist2021": "INaturalist",
}


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in memory, uint8 `[N, H, W, 3]` or `[N, H, W]` (grey); picture i is called `SPLIT/i`."""

    pictures: npt.NDArray[np.uint8]

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture."""
        return Image.fromarray(self.pictures[int(path.rsplit("/", 1)[-1])]).convert("RGB")

    def stamp(self, paths: Names) -> str:
        """Return a digest of all pictures."""
        return hashlib.sha256(np.ascontiguousarray(self.pictures).data).hexdigest()


def open_torchvision(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, the set's own splits (or `{"all": ...}`) and notes.

    Raises:
        UserError: an unknown set, a missing package, or files that are missing, damaged or cannot be downloaded.
    """
    address = SCHEME.parse(body)
    name = _find(address.body)
    known = SETS[name]
    if address["download"] not in ("", "true", "false"):
        raise UserError(f"torchvision: download is true or false, not '{address['download']}'")
    for package in known.needs:
        if importlib.util.find_spec(package) is None:
            raise require_extra(package, "sets")
    variant = _variant(name, known, address["variant"])
    root = Path(address["root"] or default_root())
    splits: dict[str, Split] = {}
    for split, arguments in known.splits.items():
        if name == "INaturalist" and split == "val" and not str(variant.get("version")).startswith("2021"):
            continue
        dataset = _construct(name, known, root, {**variant, **arguments}, download=address["download"] == "true")
        splits[split] = _split(split, dataset, known, root, data)
    if set(splits) == {"train"}:
        splits = {"all": splits["train"]}
    notes = ["EMNIST's pictures lie on their side in its files; here they stand upright"] if name == "EMNIST" else []
    return str(replace(address, body=name)), splits, notes


def default_root() -> Path:
    """Return where data sets lie when no root is given."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fixres" / "torchvision"


def _find(given: str) -> str:
    by_lower = {name.lower(): name for name in SETS} | ALIASES
    plain = given.lower().replace("-", "").replace("_", "")
    if plain not in by_lower:
        raise UserError(f"torchvision: has no set '{given}'{did_you_mean(given, SETS)}\n  allowed: {', '.join(SETS)}")
    return by_lower[plain]


def _variant(name: str, known: Known, given: str) -> Mapping[str, Any]:
    if not given:
        return next(iter(known.variants.values()), {})
    if given not in known.variants:
        allowed = f"allowed: {', '.join(known.variants)}" if known.variants else "leave ?variant= out"
        raise UserError(
            f"torchvision:{name} has no variant '{given}'{did_you_mean(given, known.variants)}\n  {allowed}"
        )
    return known.variants[given]


def _construct(name: str, known: Known, root: Path, arguments: Mapping[str, Any], *, download: bool) -> Any:
    by_hand = known.no_download.format(root=root)
    if download and known.no_download:
        raise UserError(f"torchvision:{name} cannot be downloaded: {by_hand}")
    if not download and not root.is_dir():
        raise _missing(name, root, f"there is no folder {root}", by_hand)
    from torchvision import datasets

    call = dict(arguments)
    if download:
        # Some sets load their archive again when told to download, so only where something is missing.
        with contextlib.suppress(Exception):
            return getattr(datasets, known.cls)(root=str(root), **call)
        for variable in _OFFLINE_VARIABLES:
            if os.environ.get(variable, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
                raise UserError(
                    f"torchvision:{name} is not in {root}, and {variable} is set, so no network is used\n"
                    "  put its files there, or unset it"
                )
        root.mkdir(parents=True, exist_ok=True)
        call["download"] = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(datasets, known.cls)(root=str(root), **call)
    except UserError:
        raise
    except Exception as error:  # every set has its own way to fail on missing and damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if download:
            raise UserError(
                f"torchvision:{name} cannot be downloaded to {root} ({reason})\n"
                "  check the network, or fetch its files elsewhere and put them there"
            ) from error
        reason = reason.split(" You can use download=True")[0].rstrip(".")
        raise _missing(name, root, reason, by_hand) from error


def _missing(name: str, root: Path, reason: str, by_hand: str) -> UserError:
    what = by_hand or f"to fetch it: torchvision:{name}?root={root}&download=true"
    return UserError(f"torchvision:{name} is not in {root}, or not whole ({reason})\n  {what}")


def _split(name: str, dataset: Any, known: Known, root: Path, data: Data) -> Split:
    pictures, raw_labels = known.samples(dataset)
    labels = np.asarray(raw_labels, dtype=np.int64)
    if isinstance(known.classes, tuple):
        classes = known.classes
    elif callable(known.classes):
        classes = tuple(known.classes(dataset))
    else:
        classes = tuple(getattr(dataset, known.classes))
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise UserError(
            f"torchvision:{known.cls} has a label {labels.max()} in {name}, but {len(classes)} class names\n"
            "  its files are damaged, or of another version"
        )
    source: Source
    if hasattr(pictures, "shape"):
        paths: Names = Names(f"{name}/{number:08}" for number in range(len(labels)))
        turned = np.asarray(pictures).transpose(_LAYOUTS[known.layout])
        source = Arrays(np.ascontiguousarray(turned, dtype=np.uint8))
    else:
        files = [Path(path) for path in pictures]
        if name == "all":
            # In the order of their names, where torchvision takes that of the disk.
            order = np.argsort(np.asarray([str(path) for path in pictures]), kind="stable")
            files, labels = [files[place] for place in order.tolist()], labels[order]
        paths = Names(str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in files)
        source = Files(root)
    return Split(name, classes, labels, paths, source, data.exif, data.alpha)


SCHEME = Scheme(
    "torchvision",
    "torchvision:NAME",
    "the data sets torchvision knows",
    open_torchvision,
    Grammar("torchvision:NAME?root=DIR&download=true", ("root", "download", "variant"), ("root",), "name"),
)
