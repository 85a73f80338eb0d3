"""`fixres tables --all` holds the figures of the four READMEs and of the paper's grids, cell by cell.

The figures below were typed from the READMEs, not from the product's tables.
"""

from __future__ import annotations

import contextlib
import io

import pytest

from fixres.cli.main import main

# Resolution, #Parameters, top-1, top-5.
FIXRES = """
ResNet-50 baseline | 224 25.6M 77.0 93.4
ResNet-50, 224 to 384, v1 | 384 25.6M 79.0 94.6
ResNet-50, 224 to 384, v2 | 384 25.6M 79.1 94.6
ResNet-50 CutMix, 224 to 320, v1 | 320 25.6M 79.7 94.9
ResNet-50 CutMix, 224 to 320, v2 | 320 25.6M 79.8 94.9
PNASNet-5, 331 to 480 | 480 86.1M 83.7 96.8
ResNeXt-101 32x48d, 224 to 320, v1 | 320 829M 86.3 97.9
ResNeXt-101 32x48d, 224 to 320, v2 | 320 829M 86.4 98.0
"""
# Advprop (no extra data), then noisy student: resolution, #Parameters, top-1, top-5.
FIX_EFFICIENTNET = """
B0 advprop | 320 5.3M 79.3 94.6
B0 noisystudent | 320 5.3M 80.2 95.4
B1 advprop | 384 7.8M 81.3 95.7
B1 noisystudent | 384 7.8M 82.6 96.4
B2 advprop | 420 9.2M 82.0 96.0
B2 noisystudent | 420 9.2M 83.6 96.9
B3 advprop | 472 12M 83.0 96.4
B3 noisystudent | 472 12M 85.0 97.4
B4 advprop | 512 19M 84.0 97.0
B4 noisystudent | 472 19M 85.9 97.7
B5 advprop | 576 30M 84.7 97.2
B5 noisystudent | 576 30M 86.4 97.9
B6 advprop | 576 43M 84.9 97.3
B6 noisystudent | 680 43M 86.7 98.0
B7 advprop | 632 66M 85.3 97.4
B7 noisystudent | 632 66M 87.1 98.2
B8 advprop | 800 87.4M 85.7 97.6
L2 noisystudent | 600 480M 88.5 98.7
"""
TRAINED_AT = (64, 128, 160, 224, 384)
TESTED_AT = (64, 128, 224, 288, 384, 448, 480)
# A line for each test size, a figure for each train size.
BEFORE = """
63.2 48.3 40.1 29.4 12.6
68.2 73.3 71.2 65.4 48.0
55.3 75.7 77.3 77.0 70.5
42.4 73.8 76.6 78.4 75.2
23.8 69.6 73.8 77.7 78.2
13.0 65.8 71.5 76.6 78.8
9.7 63.9 70.2 75.9 78.7
"""
AFTER = """
63.5 53.7 41.7 27.5
71.3 73.4 67.7 55.7
66.9 77.1 77.1 71.9
62.4 76.6 78.6 75.7
55.0 74.8 79.0 78.2
49.7 73.0 78.4 78.8
46.6 72.2 78.1 79.0
"""
# Error rates, the paper's before the project's.
RESNEXT = """
resnext50_32x4d | - 19.13 - 4.69
resnext101_32x8d | - 17.57 - 3.87
resnext101_64x4d | 20.4 17.03 5.3 3.74
"""
SIMPLE_SCRATCH = """
CIFAR-10, R18, raw | 32 95.31
CIFAR-10, R18, EMA | 32 95.62
CIFAR-100, R18, raw | 32 79.13
CIFAR-100, R18, EMA | 32 79.11
CUB, R18, raw | 224 60.74
CUB, R18, EMA | 224 64.64
CUB, R50, raw | 224 57.16
CUB, R50, EMA | 224 63.43
Cars, R18, raw | 224 87.33
Cars, R18, EMA | 224 87.54
Cars, R50, raw | 224 88.87
Cars, R50, EMA | 224 89.27
"""
SIMPLE_PRETRAINING = """
CUB, R18 from scratch | 224 64.64
CUB, R18 from imagenet | 224 77.11
CUB, R50 from scratch | 224 63.43
CUB, R50 from imagenet | 224 84.47
CUB, R50 from moco | 224 79.01
Cars, R18 from scratch | 224 87.54
Cars, R18 from imagenet | 224 88.42
Cars, R50 from scratch | 224 89.27
Cars, R50 from imagenet | 224 91.38
Cars, R50 from moco | 224 92.33
"""
SIMPLE_RESOLUTION = """
CUB, trained at 224 | 224 84.47
CUB, trained at 224 | 448 73.86
CUB, trained at 448 | 224 78.56
CUB, trained at 448 | 448 85.71
CUB, trained at 224, then 448 | 224 82.59
CUB, trained at 224, then 448 | 448 86.07
Cars, trained at 224 | 224 91.38
Cars, trained at 224 | 448 91.58
Cars, trained at 448 | 224 79.23
Cars, trained at 448 | 448 91.88
Cars, trained at 224, then 448 | 224 87.46
Cars, trained at 224, then 448 | 448 92.18
"""
ASCEND = """
1p-竞品V, published | - | - | 120/60 | - | 1.5
8p-竞品V, published | - | - | 120/60 | - | 1.5
1p-NPU, published | - | 590/711 | 120/60 | O1 | 1.8
8p-NPU, published | 72.9(72.1 before finetune) | 3318/3515 | 120/60 | O1 | 1.8
"""


@pytest.fixture(scope="module")
def printed() -> dict[str, list[dict[str, str]]]:
    """Return the tables as printed, by title: a mapping from column to cell for each row."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        assert main(["tables", "--all"]) == 0
    found = {}
    for part in stream.getvalue().split("## ")[1:]:
        title, *lines = part.splitlines()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
        found[title] = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    return found


def cells(rows: list[dict[str, str]], *columns: str) -> set[tuple[str, ...]]:
    return {tuple(row[column] for column in ("row", *columns)) for row in rows}


def typed(text: str) -> set[tuple[str, ...]]:
    lines = (line.split(" | ") for line in text.strip().splitlines())
    return {(label, *values.split()) for label, values in lines}


def test_the_tables_of_fixres(printed: dict[str, list[dict[str, str]]]) -> None:
    columns = ("px", "#Parameters", "top-1 %, published", "top-5 %, published")
    assert typed(FIXRES) <= cells(printed["FixRes: fixed networks"], *columns)
    assert typed(FIX_EFFICIENTNET) == cells(printed["FixRes: FixEfficientNet"], *columns)


@pytest.mark.parametrize(
    ("title", "trained_at", "word", "text"),
    [
        ("FixRes: ResNet-50 without a fix", TRAINED_AT, "trained at", BEFORE),
        ("FixRes: ResNet-50 after the fix", (64, 128, 224, 384), "from", AFTER),
    ],
)
def test_the_grids_of_the_paper(
    title: str, trained_at: tuple[int, ...], word: str, text: str, printed: dict[str, list[dict[str, str]]]
) -> None:
    expected = {
        (f"{word} {train} px", str(test), value)
        for test, line in zip(TESTED_AT, text.split("\n")[1:-1], strict=True)
        for train, value in zip(trained_at, line.split(), strict=True)
    }
    rows = [row for row in printed[title] if "CutMix" not in row["row"]]
    assert cells(rows, "px", "top-1 %, published") == expected


def test_the_table_of_resnext_pytorch(printed: dict[str, list[dict[str, str]]]) -> None:
    columns = [f"top-{k} error %, {whose}" for k in (1, 5) for whose in ("paper", "published")]
    assert cells(printed["ResNeXt-PyTorch: ImageNet"], *columns) == typed(RESNEXT)


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("SimpleClassification: from scratch", SIMPLE_SCRATCH),
        ("SimpleClassification: pretraining", SIMPLE_PRETRAINING),
        ("SimpleClassification: resolution", SIMPLE_RESOLUTION),
    ],
)
def test_the_tables_of_simpleclassification(title: str, text: str, printed: dict[str, list[dict[str, str]]]) -> None:
    assert cells(printed[title], "px", "top-1 %, published") == typed(text)


def test_the_table_of_the_ascend_port(printed: dict[str, list[dict[str, str]]]) -> None:
    rows = [list(row.values()) for row in printed["Ascend: ResNet-50"] if row["Name"].endswith("published")]
    assert rows == [line.split(" | ") for line in ASCEND.strip().splitlines()]
    ours = [row["Name"] for row in printed["Ascend: ResNet-50"] if row["Name"].endswith("ours")]
    assert ours == ["1p-NPU, ours", "8p-NPU, ours"]


def test_raw_rows_name_the_training_that_logs_them(printed: dict[str, list[dict[str, str]]]) -> None:
    rows = {row["row"]: row["recipe"] for row in printed["SimpleClassification: from scratch"]}
    assert rows["CUB, R18, raw"] == "`simple/cub-resnet18`, raw weights"
    assert rows["CUB, R18, EMA"] == "`simple/cub-resnet18`"
