"""The published tables of the four systems as plain data: which recipe makes a row, and what was published for it.

FixRes: the paper (arXiv 1906.06423v2) and its README. ResNeXt-PyTorch, SimpleClassification, the Ascend port: their
READMEs. A figure nobody published is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["shipped", "before", "raw", "each"]
"""What figures belong to: what ships, the network before its fix, the weights that an average was taken of, or the
networks of one fix for each size."""


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
    """Whose runs fill the row; empty: no shipped recipe's."""
    figures: tuple[Figure, ...]
    of: Kind = "shipped"
    more: tuple[str, ...] = ()
    """Cells of the table's own columns."""


@dataclass(frozen=True)
class Table:
    """One published table."""

    title: str
    source: str
    rows: tuple[Row, ...]
    is_error: bool = False
    """In percent wrong, as its project writes it."""
    columns: tuple[str, ...] = ()
    """Published columns beside the accuracies."""


class AscendRow(NamedTuple):
    """One row of the port's table; speeds and epochs are those of training and fine-tuning."""

    name: str
    devices: int
    """Of the port's own rows; 0: a row of another vendor's devices, which no recipe of the port fills."""
    accuracy: str
    speed: str
    epochs: str
    precision: str
    torch: str


_KINDS: tuple[Kind, ...] = ("before", "raw", "each")
_PUBLISHED = """
# FixRes: ResNet-50 without a fix | Touvron et al. 2019, accuracy against test size
trained at 64 px | fixres/resnet50-64 | 64 63.2, 128 68.2, 224 55.3, 288 42.4, 384 23.8, 448 13.0, 480 9.7
trained at 128 px | fixres/resnet50-128 | 64 48.3, 128 73.3, 224 75.7, 288 73.8, 384 69.6, 448 65.8, 480 63.9
trained at 160 px | fixres/resnet50-160 | 64 40.1, 128 71.2, 224 77.3, 288 76.6, 384 73.8, 448 71.5, 480 70.2
trained at 224 px | fixres/resnet50-224 | 64 29.4, 128 65.4, 224 77.0, 288 78.4, 384 77.7, 448 76.6, 480 75.9
trained at 384 px | fixres/resnet50-384 | 64 12.6, 128 48.0, 224 70.5, 288 75.2, 384 78.2, 448 78.8, 480 78.7
trained at 224 px with CutMix | fixres/resnet50-cutmix-224 | 224 78.4 94.1
# FixRes: ResNet-50 after the fix | Touvron et al. 2019, fixed at each test size (`fixres study --train-sizes` does)
from 64 px | - | each 64 63.5, 128 71.3, 224 66.9, 288 62.4, 384 55.0, 448 49.7, 480 46.6
from 128 px | fixres/resnet50-128-fix224-v1 | each 64 53.7, 128 73.4, 224 77.1, 288 76.6, 384 74.8, 448 73.0, 480 72.2
from 224 px | fixres/resnet50-224-fix384-v1 | each 64 41.7, 128 67.7, 224 77.1, 288 78.6, 384 79.0, 448 78.4, 480 78.1
from 384 px | - | each 64 27.5, 128 55.7, 224 71.9, 288 75.7, 384 78.2, 448 78.8, 480 79.0
# FixRes: fixed networks | Touvron et al. 2019; README | +#Parameters
ResNet-50 baseline | fixres/resnet50-224 | 224 77.0 93.4 | 25.6M
ResNet-50, 128 to 224, v1 | fixres/resnet50-128-fix224-v1 | 224 77.1 | -
ResNet-50, 160 to 224, v1 | fixres/resnet50-160-fix224-v1 | 224 77.6 | -
ResNet-50, 224 to 384, v1 | fixres/resnet50-224-fix384-v1 | 384 79.0 94.6 | 25.6M
ResNet-50, 224 to 384, v2 | fixres/resnet50-224-fix384-v2 | 384 79.1 94.6 | 25.6M
ResNet-50 CutMix, 224 to 320, v1 | fixres/resnet50-cutmix-224-fix320-v1 | 320 79.7 94.9 | 25.6M
ResNet-50 CutMix, 224 to 320, v2 | fixres/resnet50-cutmix-224-fix320-v2 | 320 79.8 94.9 | 25.6M
ResNet-50 billion-scale, 160 to 224 | fixres/resnet50-billion-160-fix224 | 224 81.9 96.1 | -
ResNet-50 billion-scale, 224 to 320 | fixres/resnet50-billion-224-fix320 | 320 82.5 96.6 | -
PNASNet-5, 331 to 480 | fixres/pnasnet5-fix480 | 480 83.7 96.8 | 86.1M
ResNeXt-101 32x48d, 224 to 320, v1 | fixres/resnext101-32x48d-fix320-v1 | 320 86.3 97.9 | 829M
ResNeXt-101 32x48d, 224 to 320, v2 | fixres/resnext101-32x48d-fix320-v2 | 320 86.4 98.0 | 829M
# FixRes: FixEfficientNet | README_FixEfficientNet | +#Parameters
B0 advprop | fixres/efficientnet-b0-advprop-fix320 | 320 79.3 94.6 | 5.3M
B0 noisystudent | fixres/efficientnet-b0-noisystudent-fix320 | 320 80.2 95.4 | 5.3M
B1 advprop | fixres/efficientnet-b1-advprop-fix384 | 384 81.3 95.7 | 7.8M
B1 noisystudent | fixres/efficientnet-b1-noisystudent-fix384 | 384 82.6 96.4 | 7.8M
B2 advprop | fixres/efficientnet-b2-advprop-fix420 | 420 82.0 96.0 | 9.2M
B2 noisystudent | fixres/efficientnet-b2-noisystudent-fix420 | 420 83.6 96.9 | 9.2M
B3 advprop | fixres/efficientnet-b3-advprop-fix472 | 472 83.0 96.4 | 12M
B3 noisystudent | fixres/efficientnet-b3-noisystudent-fix472 | 472 85.0 97.4 | 12M
B4 advprop | fixres/efficientnet-b4-advprop-fix512 | 512 84.0 97.0 | 19M
B4 noisystudent | fixres/efficientnet-b4-noisystudent-fix472 | 472 85.9 97.7 | 19M
B5 advprop | fixres/efficientnet-b5-advprop-fix576 | 576 84.7 97.2 | 30M
B5 noisystudent | fixres/efficientnet-b5-noisystudent-fix576 | 576 86.4 97.9 | 30M
B6 advprop | fixres/efficientnet-b6-advprop-fix576 | 576 84.9 97.3 | 43M
B6 noisystudent | fixres/efficientnet-b6-noisystudent-fix680 | 680 86.7 98.0 | 43M
B7 advprop | fixres/efficientnet-b7-advprop-fix632 | 632 85.3 97.4 | 66M
B7 noisystudent | fixres/efficientnet-b7-noisystudent-fix632 | 632 87.1 98.2 | 66M
B8 advprop | fixres/efficientnet-b8-advprop-fix800 | 800 85.7 97.6 | 87.4M
L2 noisystudent | fixres/efficientnet-l2-noisystudent-fix600 | 600 88.5 98.7 | 480M
# FixRes: transfer | Touvron et al. 2019, transfer
iNaturalist 2017, before | fixres/inat2017-senet154 | before 0 74.1
iNaturalist 2017, fixed | fixres/inat2017-senet154 | 0 75.4
Stanford Cars, before | fixres/cars-senet154 | before 0 94.0
Stanford Cars, fixed | fixres/cars-senet154 | 0 94.4
CUB-200-2011, before | fixres/cub-senet154 | before 0 88.4
CUB-200-2011, fixed | fixres/cub-senet154 | 0 88.7
Flowers-102, before | fixres/flowers-inception-resnet-v2 | before 0 95.0
Flowers-102, fixed | fixres/flowers-inception-resnet-v2 | 0 95.7
Oxford Pets, before | fixres/pets-senet154 | before 0 94.6
Oxford Pets, fixed | fixres/pets-senet154 | 0 94.8
NABirds, before | fixres/nabirds-senet154 | before 0 88.3
NABirds, fixed | fixres/nabirds-senet154 | 0 89.2
Birdsnap, before | fixres/birdsnap-senet154 | before 0 83.4
Birdsnap, fixed | fixres/birdsnap-senet154 | 0 84.3
# ResNeXt-PyTorch: ImageNet | its README | error | +top-1 error %, paper | +top-5 error %, paper
resnext50_32x4d | resnext/resnext50-32x4d | 224 19.13 4.69 | - | -
resnext101_32x8d | resnext/resnext101-32x8d | 224 17.57 3.87 | - | -
resnext101_64x4d | resnext/resnext101-64x4d | 224 17.03 3.74 | 20.4 | 5.3
# SimpleClassification: from scratch | its README, best epoch on test
CIFAR-10, R18, raw | simple/cifar10-resnet18-raw | raw 32 95.31
CIFAR-10, R18, EMA | simple/cifar10-resnet18 | 32 95.62
CIFAR-100, R18, raw | simple/cifar100-resnet18-raw | raw 32 79.13
CIFAR-100, R18, EMA | simple/cifar100-resnet18 | 32 79.11
CUB, R18, raw | simple/cub-resnet18-raw | raw 224 60.74
CUB, R18, EMA | simple/cub-resnet18 | 224 64.64
CUB, R50, raw | simple/cub-resnet50-raw | raw 224 57.16
CUB, R50, EMA | simple/cub-resnet50 | 224 63.43
Cars, R18, raw | simple/cars-resnet18-raw | raw 224 87.33
Cars, R18, EMA | simple/cars-resnet18 | 224 87.54
Cars, R50, raw | simple/cars-resnet50-raw | raw 224 88.87
Cars, R50, EMA | simple/cars-resnet50 | 224 89.27
# SimpleClassification: pretraining | its README, best epoch on test
CUB, R18 from scratch | simple/cub-resnet18 | 224 64.64
CUB, R18 from imagenet | simple/cub-resnet18-imagenet | 224 77.11
CUB, R50 from scratch | simple/cub-resnet50 | 224 63.43
CUB, R50 from imagenet | simple/cub-resnet50-imagenet | 224 84.47
CUB, R50 from moco | simple/cub-resnet50-moco | 224 79.01
Cars, R18 from scratch | simple/cars-resnet18 | 224 87.54
Cars, R18 from imagenet | simple/cars-resnet18-imagenet | 224 88.42
Cars, R50 from scratch | simple/cars-resnet50 | 224 89.27
Cars, R50 from imagenet | simple/cars-resnet50-imagenet | 224 91.38
Cars, R50 from moco | simple/cars-resnet50-moco | 224 92.33
# SimpleClassification: resolution | its README, best epoch on test
CUB, trained at 224 | simple/cub-resnet50-imagenet-224 | 224 84.47, 448 73.86
CUB, trained at 448 | simple/cub-resnet50-imagenet-448 | 224 78.56, 448 85.71
CUB, trained at 224, then 448 | simple/cub-resnet50-imagenet-224-448 | 224 82.59, 448 86.07
Cars, trained at 224 | simple/cars-resnet50-imagenet-224 | 224 91.38, 448 91.58
Cars, trained at 448 | simple/cars-resnet50-imagenet-448 | 224 79.23, 448 91.88
Cars, trained at 224, then 448 | simple/cars-resnet50-imagenet-224-448 | 224 87.46, 448 92.18
# Modern: trained small, tested larger | torchvision; arXiv 2110.00476
torchvision, 176 px, larger test only | modern/resnet50-torchvision-176-fix224 | before 224 80.858 95.434
torchvision, 176 px, fixed | modern/resnet50-torchvision-176-fix224 | 224
timm A3, 160 px, larger test only | modern/resnet50-timm-a3-160-fix224 | before 224 78.1
timm A3, 160 px, fixed | modern/resnet50-timm-a3-160-fix224 | 224
# Modern: FFCV's progressive sizes | README of ffcv-imagenet, mean of a picture and its mirror image
ResNet-18, 16 epochs | modern/resnet18-ffcv-16 | 256 66.9 86.8
ResNet-18, 24 epochs | modern/resnet18-ffcv-24 | 256 68.8 88.1
ResNet-18, 32 epochs | modern/resnet18-ffcv-32 | 256 70.0 88.9
ResNet-18, 40 epochs | modern/resnet18-ffcv-40 | 256 70.6 89.4
ResNet-18, 56 epochs | modern/resnet18-ffcv-56 | 256 71.3 89.9
ResNet-18, 88 epochs | modern/resnet18-ffcv-88 | 256 72.4 90.3
ResNet-50, 16 epochs | modern/resnet50-ffcv-16 | 256 73.8 90.8
ResNet-50, 24 epochs | modern/resnet50-ffcv-24 | 256 75.6 92.1
ResNet-50, 32 epochs | modern/resnet50-ffcv-32 | 256 76.6 92.7
ResNet-50, 40 epochs | modern/resnet50-ffcv-40 | 256 77.2 93.2
ResNet-50, 56 epochs | modern/resnet50-ffcv-56 | 256 78.0 93.7
ResNet-50, 88 epochs | modern/resnet50-ffcv-88 | 256 78.4 94.1
"""
"""A table has a line with its title, its source, whether its figures are errors and its own columns; a row has its
label, its recipe, for every size its top-1 and top-5, as far as published, and its cells of those columns. The sizes
may begin with what the figures belong to. Size 0 stands for that of the recipe's stage."""


def _tables(text: str) -> Iterator[Table]:
    for table in text.split("\n# ")[1:]:
        heading, *lines = table.splitlines()
        title, source, *marks = heading.split(" | ")
        columns = tuple(mark[1:] for mark in marks if mark.startswith("+"))
        is_error = "error" in marks
        yield Table(title, source, tuple(_row(line, is_error) for line in lines), is_error, columns)


def _row(line: str, is_error: bool) -> Row:
    label, recipe, text, *more = line.split(" | ")
    of: Kind = next((kind for kind in _KINDS if text.startswith(f"{kind} ")), "shipped")
    figures = []
    for figure in text.removeprefix(f"{of} ").split(", "):
        size, *values = figure.split()
        found: list[float | None] = [round(100 - float(value), 2) if is_error else float(value) for value in values]
        figures.append(Figure(int(size), *(found or [None])))
    return Row(label, recipe.strip("-"), tuple(figures), of, tuple(more))


TABLES: tuple[Table, ...] = tuple(_tables(_PUBLISHED))
"""Every published table but the port's."""

ASCEND: tuple[AscendRow, ...] = (
    AscendRow("1p-竞品V", 0, "-", "-", "120/60", "-", "1.5"),
    AscendRow("8p-竞品V", 0, "-", "-", "120/60", "-", "1.5"),
    AscendRow("1p-NPU", 1, "-", "590/711", "120/60", "O1", "1.8"),
    AscendRow("8p-NPU", 8, "72.9(72.1 before finetune)", "3318/3515", "120/60", "O1", "1.8"),
)
"""The port's table: its columns, and which runs fill a row."""
