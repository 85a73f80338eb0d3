"""ELPV: its labels are the package's own, its splits even in every kind of cell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.opening import opened, refusal


def test_elpv_is_stratified_by_class_and_cell_type() -> None:
    pytest.importorskip("elpv_dataset")
    collection = opened("elpv:")
    assert collection.classes == ("functional", "defective")
    assert (collection.select, collection.report) == ("val", "test")
    assert sum(len(split) for split in collection.splits.values()) == 2624
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    totals: dict[tuple[int, str], int] = {}
    strata = {}
    for name, split in collection.splits.items():
        assert split.subgroups is not None
        strata[name] = list(zip(split.labels.tolist(), split.subgroups, strict=True))
        for stratum in strata[name]:
            totals[stratum] = totals.get(stratum, 0) + 1
    assert len(totals) == 4
    for name, members in strata.items():
        for stratum, total in totals.items():
            assert abs(members.count(stratum) - shares[name] * total) < 1
    picture = collection.split("test").read(0)
    assert (picture.mode, picture.size) == ("RGB", (300, 300))


def test_elpv_labels_are_the_packages_own() -> None:
    elpv_dataset = pytest.importorskip("elpv_dataset")
    table = Path(elpv_dataset.__file__).parent / "data" / "labels.csv"
    probability = {line.split()[0]: float(line.split()[1]) for line in table.read_text().splitlines()}
    for split in opened("elpv:").splits.values():
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            assert label == (probability[path] >= 0.5)


def test_elpv_without_its_package_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    assert "pip install 'fixres[demo]'" in refusal("elpv:")
