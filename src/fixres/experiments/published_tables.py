"""The published tables of the four systems as plain data: which recipe makes a row, and what was published for it.

FixRes: the paper (arXiv 1906.06423v2) and its README. ResNeXt-PyTorch, SimpleClassification, the Ascend port: their
READMEs. A figure nobody published is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Figure(NamedTuple):
    """Accuracy in percent at a size in pixels."""

    size: int
    top1: float | None
    top5: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a published table."""

    label: str
    recipe: str
    figures: tuple[Figure, ...]
    is_before: bool = False
    """Whether the figures are those of the network before its fix."""


@dataclass(frozen=True)
class Table:
    """One published table; `error`: in percent wrong, as its project writes it."""

    title: str
    source: str
    rows: tuple[Row, ...]
    kind: Literal["accuracy", "error"] = "accuracy"


class AscendRow(NamedTuple):
    """One row of the port's table; speeds and epochs are those of training and fine-tuning."""

    name: str
    devices: int
    accuracy: str
    speed: str
    epochs: str
    precision: str
    torch: str


_PAPER = "Touvron et al. 2019"
_GRID = (64, 128, 224, 288, 384, 448, 480)


def _grid(train: int, values: str) -> Row:
    pairs = zip(_GRID, values.split(), strict=True)
    return Row(f"trained at {train} px", f"fixres/resnet50-{train}", tuple(Figure(s, float(v)) for s, v in pairs))


def _fixres() -> tuple[Table, ...]:
    grid = (
        _grid(64, "63.2 68.2 55.3 42.4 23.8 13.0 9.7"),
        _grid(128, "48.3 73.3 75.7 73.8 69.6 65.8 63.9"),
        _grid(160, "40.1 71.2 77.3 76.6 73.8 71.5 70.2"),
        _grid(224, "29.4 65.4 77.0 78.4 77.7 76.6 75.9"),
        _grid(384, "12.6 48.0 70.5 75.2 78.2 78.8 78.7"),
        Row("trained at 224 px with CutMix", "fixres/resnet50-cutmix-224", (Figure(224, 78.4, 94.1),)),
    )
    fixed = (
        ("ResNet-50, 128 to 224, v1", "resnet50-128-fix224-v1", Figure(224, 77.1)),
        ("ResNet-50, 160 to 224, v1", "resnet50-160-fix224-v1", Figure(224, 77.6)),
        ("ResNet-50, 224 to 384, v1", "resnet50-224-fix384-v1", Figure(384, 79.0, 94.6)),
        ("ResNet-50, 224 to 384, v2", "resnet50-224-fix384-v2", Figure(384, 79.1, 94.6)),
        ("ResNet-50 CutMix, 224 to 320, v1", "resnet50-cutmix-224-fix320-v1", Figure(320, 79.7, 94.9)),
        ("ResNet-50 CutMix, 224 to 320, v2", "resnet50-cutmix-224-fix320-v2", Figure(320, 79.8, 94.9)),
        ("ResNet-50 billion-scale, 160 to 224", "resnet50-billion-160-fix224", Figure(224, 81.9, 96.1)),
        ("ResNet-50 billion-scale, 224 to 320", "resnet50-billion-224-fix320", Figure(320, 82.5, 96.6)),
        ("PNASNet-5, 331 to 480", "pnasnet5-fix480", Figure(480, 83.7, 96.8)),
        ("ResNeXt-101 32x48d, 224 to 320, v1", "resnext101-32x48d-fix320-v1", Figure(320, 86.3, 97.9)),
        ("ResNeXt-101 32x48d, 224 to 320, v2", "resnext101-32x48d-fix320-v2", Figure(320, 86.4, 98.0)),
    )
    return (
        Table("FixRes: ResNet-50 without a fix", f"{_PAPER}, accuracy against test size", grid),
        Table("FixRes: fixed networks", f"{_PAPER}; README", tuple(Row(n, f"fixres/{r}", (f,)) for n, r, f in fixed)),
        Table("FixRes: FixEfficientNet", "README_FixEfficientNet", _efficientnets()),
        Table("FixRes: transfer", f"{_PAPER}, transfer", _transfer()),
    )


def _efficientnets() -> tuple[Row, ...]:
    rows = """b0 320 79.3 94.6 320 80.2 95.4/b1 384 81.3 95.7 384 82.6 96.4/b2 420 82.0 96.0 420 83.6 96.9
    /b3 472 83.0 96.4 472 85.0 97.4/b4 512 84.0 97.0 472 85.9 97.7/b5 576 84.7 97.2 576 86.4 97.9
    /b6 576 84.9 97.3 680 86.7 98.0/b7 632 85.3 97.4 632 87.1 98.2/b8 800 85.7 97.6/l2 - - - 600 88.5 98.7"""
    found = []
    for row in rows.split("/"):
        width, *values = row.split()
        for kind, (size, top1, top5) in zip(
            ("advprop", "noisystudent"), zip(*[iter(values)] * 3, strict=True), strict=False
        ):
            if size != "-":
                recipe = f"fixres/efficientnet-{width}-{kind}-fix{size}"
                found.append(Row(f"{width.upper()} {kind}", recipe, (Figure(int(size), float(top1), float(top5)),)))
    return tuple(found)


def _transfer() -> tuple[Row, ...]:
    """Rows whose sizes nobody published: those of the recipe, 0 standing for the size of the stage."""
    rows = (
        ("iNaturalist 2017", "inat2017-senet154", 74.1, 75.4),
        ("Stanford Cars", "cars-senet154", 94.0, 94.4),
        ("CUB-200-2011", "cub-senet154", 88.4, 88.7),
        ("Flowers-102", "flowers-inception-resnet-v2", 95.0, 95.7),
        ("Oxford Pets", "pets-senet154", 94.6, 94.8),
        ("NABirds", "nabirds-senet154", 88.3, 89.2),
        ("Birdsnap", "birdsnap-senet154", 83.4, 84.3),
    )
    found = []
    for label, recipe, before, after in rows:
        found.append(Row(f"{label}, before", f"fixres/{recipe}", (Figure(0, before),), is_before=True))
        found.append(Row(f"{label}, fixed", f"fixres/{recipe}", (Figure(0, after),)))
    return tuple(found)


def _resnext() -> Table:
    errors = (("resnext50-32x4d", 19.13, 4.69), ("resnext101-32x8d", 17.57, 3.87), ("resnext101-64x4d", 17.03, 3.74))
    rows = tuple(
        Row(name.replace("-", "_"), f"resnext/{name}", (Figure(224, round(100 - one, 2), round(100 - five, 2)),))
        for name, one, five in errors
    )
    return Table("ResNeXt-PyTorch: ImageNet", "its README", rows, "error")


def _simple() -> tuple[Table, ...]:
    scratch = [
        Row(f"{name}, R18, {how}", f"simple/{key}-resnet18{end}", (Figure(32, top1),))
        for name, key, tops in (("CIFAR-10", "cifar10", (95.31, 95.62)), ("CIFAR-100", "cifar100", (79.13, 79.11)))
        for how, end, top1 in (("raw", "-raw", tops[0]), ("EMA", "", tops[1]))
    ]
    pretraining, resolution = [], []
    for name, key, place in (("CUB", "cub", 0), ("Cars", "cars", 1)):
        for net, raw, average in (("18", (60.74, 87.33), (64.64, 87.54)), ("50", (57.16, 88.87), (63.43, 89.27))):
            recipe = f"simple/{key}-resnet{net}"
            scratch.append(Row(f"{name}, R{net}, raw", f"{recipe}-raw", (Figure(224, raw[place]),)))
            scratch.append(Row(f"{name}, R{net}, EMA", recipe, (Figure(224, average[place]),)))
        for how, top1 in (
            ("resnet18-imagenet", (77.11, 88.42)),
            ("resnet50-imagenet", (84.47, 91.38)),
            ("resnet50-moco", (79.01, 92.33)),
        ):
            label = f"{name}, {how.replace('resnet', 'R').replace('-', ' from ')}"
            pretraining.append(Row(label, f"simple/{key}-{how}", (Figure(224, top1[place]),)))
        for how, small, large in (
            ("224", (84.47, 91.38), (73.86, 91.58)),
            ("448", (78.56, 79.23), (85.71, 91.88)),
            ("224-448", (82.59, 87.46), (86.07, 92.18)),
        ):
            figures = (Figure(224, small[place]), Figure(448, large[place]))
            recipe = f"simple/{key}-resnet50-imagenet-{how}"
            resolution.append(Row(f"{name}, trained at {how.replace('-', ', then ')}", recipe, figures))
    return (
        Table("SimpleClassification: from scratch", "its README, best epoch on test", tuple(scratch)),
        Table("SimpleClassification: pretraining", "its README, best epoch on test", tuple(pretraining)),
        Table("SimpleClassification: resolution", "its README, best epoch on test", tuple(resolution)),
    )


def _modern() -> tuple[Table, ...]:
    names = (("torchvision, 176 px", "torchvision-176", 80.858, 95.434), ("timm A3, 160 px", "timm-a3-160", 78.1, None))
    rows: list[Row] = []
    for label, key, top1, top5 in names:
        recipe = f"modern/resnet50-{key}-fix224"
        rows.append(Row(f"{label}, larger test only", recipe, (Figure(224, top1, top5),), is_before=True))
        rows.append(Row(f"{label}, fixed", recipe, (Figure(224, None),)))
    ffcv = """18: 16 66.9 86.8 24 68.8 88.1 32 70.0 88.9 40 70.6 89.4 56 71.3 89.9 88 72.4 90.3
    50: 16 73.8 90.8 24 75.6 92.1 32 76.6 92.7 40 77.2 93.2 56 78.0 93.7 88 78.4 94.1"""
    progressive = []
    for line in ffcv.splitlines():
        depth, _, values = line.strip().partition(": ")
        for epochs, top1, top5 in zip(*[iter(values.split())] * 3, strict=True):
            figure = Figure(256, float(top1), float(top5))
            recipe = f"modern/resnet{depth}-ffcv-{epochs}"
            progressive.append(Row(f"ResNet-{depth}, {epochs} epochs", recipe, (figure,)))
    source = "README of ffcv-imagenet, mean of a picture and its mirror image"
    return (
        Table("Modern: trained small, tested larger", "torchvision; arXiv 2110.00476", tuple(rows)),
        Table("Modern: FFCV's progressive sizes", source, tuple(progressive)),
    )


TABLES: tuple[Table, ...] = (*_fixres(), _resnext(), *_simple(), *_modern())
"""Every published table but the port's."""

_TORCH = "1.5 or 1.8"
_BOTH = "72.9(72.1 before finetune)"
ASCEND: tuple[AscendRow, ...] = (
    AscendRow("1p-NPU", 1, "-", "590/711", "1/1", "O1", _TORCH),
    AscendRow("8p-NPU", 8, _BOTH, "3318/3515", "120/60", "O1", _TORCH),
)
"""The port's table: its columns, and which runs fill a row."""
