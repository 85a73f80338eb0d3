"""Every known set: from its official files, in miniature, to a collection, and its facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.prepare.known_sets import SETS, find_set
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import archive_makers as made
from tests.support.known_sets import CASES, prepared, tree


@pytest.mark.parametrize("name", list(SETS))
def test_every_set_becomes_a_collection(name: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    make, counts, num_classes = CASES[name]
    files = make()
    if name in ("mnist", "fashion-mnist"):  # two test pictures cannot have all classes
        shrink(name, files, counts, num_classes)
        report = prepared(name, files, tmp_path, allow_partial=True)
        assert [note for note in report.notes if "not whole" in note] == [
            "not whole: 10 classes expected, 2 found in test"
        ]
    else:
        shrink(name, files, counts, num_classes)
        report = prepared(name, files, tmp_path)
        assert report.is_complete
    assert (report.counts, report.num_classes) == (counts, num_classes)
    assert not report.was_there
    # The user's files are as they were, and nothing else is left behind.
    assert tree(tmp_path / "from") == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "out"]
    record = json.loads((tmp_path / "out" / "fixres-data.json").read_text())
    assert (record["set"], record["counts"], record["num_classes"]) == (name, counts, num_classes)
    assert record["license"] == SETS[name].license
    published = {file.names[0] for file in SETS[name].files.values() if file.md5 and file.names[0] in files}
    assert {file for file, state in record["sources"].items() if state == "as published"} == published
    collection = open_collection(Data(uri=f"folder:{tmp_path / 'out'}", holdout=0))
    assert len(collection.classes) == num_classes
    for split, count in counts.items():
        if split:
            assert len(collection.split(split)) == count
            collection.split(split).read(count - 1)
    again = prepared(name, files, tmp_path, allow_partial=True)
    assert again.was_there
    assert again.counts == counts


def test_classes_keep_the_published_order(shrink: Callable[..., None], tmp_path: Path) -> None:
    folders = {}
    for name in ("flowers102", "oxford-pets", "fgvc-aircraft", "fashion-mnist"):
        make, counts, num_classes = CASES[name]
        shrink(name, make(), counts, num_classes)
        made.write_all(tmp_path / name, make())
        out = tmp_path / f"{name}-out"
        prepare(name, tmp_path / name, out, options=Options(allow_partial=True))
        folders[name] = sorted(path.name for path in (out / "train").iterdir())
    assert folders["flowers102"] == ["001", "002"]
    assert folders["oxford-pets"] == ["Abyssinian", "American Bulldog"]
    assert folders["fgvc-aircraft"] == ["707-320", "F-A-18"]
    assert folders["fashion-mnist"][:2] == ["0.T-shirt-top", "1.Trouser"]
    assert len(folders["fashion-mnist"]) == 10


def test_an_unknown_set_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"(?s)'cub-200-2012' - did you mean 'cub-200-2011'.*imagenet, tiny-imagenet-200"
    ):
        find_set("cub-200-2012")
    assert find_set("CIFAR_10").name == "cifar10"
    names = [known for entry in SETS.values() for known in (entry.name, *entry.aliases)]
    assert len({find_set(known).name for known in names}) == len(SETS)


@pytest.mark.parametrize("name", list(SETS))
def test_every_row_of_the_table_is_complete(name: str) -> None:
    info = SETS[name]
    assert info.license
    assert info.page.startswith("https://")
    assert info.can_download or info.how_to_get
    assert {key for layout in (*info.layouts, *info.partial_layouts) for key in layout} == set(info.files)
    for file in info.files.values():
        if file.url:
            # Plain http is only for what a checksum pins; these need neither exception nor trust.
            assert file.url.startswith("https://")
            assert len(file.md5) == 32
            assert file.megabytes > 0


def test_checksums_are_torchvisions() -> None:
    from torchvision import datasets

    def table(name: str) -> dict[str, str]:
        return {file.names[0]: file.md5 for file in SETS[name].files.values() if file.md5}

    assert table("cifar10") == {datasets.CIFAR10.filename: datasets.CIFAR10.tgz_md5}
    assert table("cifar100") == {datasets.CIFAR100.filename: datasets.CIFAR100.tgz_md5}
    assert table("mnist") == dict(datasets.MNIST.resources)
    assert table("fashion-mnist") == dict(datasets.FashionMNIST.resources)
    assert table("flowers102") == dict(datasets.Flowers102._file_dict.values())
    assert table("food101") == {"food-101.tar.gz": datasets.Food101._MD5}
    assert table("oxford-pets") == {url.rsplit("/", 1)[-1]: md5 for url, md5 in datasets.OxfordIIITPet._RESOURCES}
    assert table("imagenet") == dict(datasets.imagenet.ARCHIVE_META.values())


def test_the_page_about_data_has_the_table_of_the_code() -> None:
    from tools.docs.sets_table import sets_table

    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert sets_table() in page
    assert all(f"**{name}**" in page for name in SETS)
