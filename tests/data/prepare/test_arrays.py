"""Arrays of pixels: exact as PNG files; batches that are not plain or not whole are refused."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import archive_makers as made
from tests.support.known_sets import by_path, prepared


@pytest.mark.parametrize("python", [2, 3])
def test_cifar_pixels_are_exact(python: int, shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.cifar10(python)
    shrink("cifar10", files, {"train": 20, "test": 4}, 4)
    prepared("cifar10", files, tmp_path)
    with Image.open(tmp_path / "out/test/airplane/test_batch_00001.png") as picture:
        pixels = np.asarray(picture)
    red, green, blue = made.cifar_pixels(5, 4)[1].reshape(3, 32, 32)
    assert np.array_equal(pixels, np.stack([red, green, blue], axis=-1))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch EVIL",)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pickle.dumps(Evil(), 2), "asks for posix.system"),
        (pickle.dumps({b"labels": [0], b"data": np.zeros((1, 3072))}, 2), "something else than bytes"),
        (pickle.dumps({b"labels": [0], b"data": np.array([object])}, 2), "asks for|something else than bytes"),
        (made.Python2Pickler().dumps({b"labels": [9], b"data": made.cifar_pixels(0, 1)}), "label 9; there are 4"),
        (made.Python2Pickler().dumps({b"labels": [0, 1], b"data": made.cifar_pixels(0, 1)}), "each of its 2 labels"),
        (made.Python2Pickler().dumps({b"data": made.cifar_pixels(0, 1)}), "holds no 'labels'"),
        (made.Python2Pickler().dumps([1]), "holds no table"),
        (made.Python2Pickler().dumps({b"labels": [0]})[:-3], "is refused"),
    ],
)
def test_a_batch_that_is_not_plain_is_refused(
    batch: bytes, message: str, shrink: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = made.cifar10(test_batch=batch)
    shrink("cifar10", files, {"train": 20, "test": 4}, 4)
    with pytest.raises(UserError, match=message):
        prepared("cifar10", files, tmp_path)
    assert not (tmp_path / "EVIL").exists()
    assert not (tmp_path / "out").exists()


def test_digits_are_exact_packed_or_not(shrink: Callable[..., None], tmp_path: Path) -> None:
    packed = made.mnist()
    files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in packed.items()}
    shrink("mnist", packed, {"train": 10, "test": 2}, 10)
    prepared("mnist", files, tmp_path, allow_partial=True)
    made.write_all(tmp_path / "packed", packed)
    prepare("mnist", tmp_path / "packed", tmp_path / "other", options=Options(allow_partial=True))
    assert by_path(tmp_path / "other") == by_path(tmp_path / "out")
    images = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 28, 28)
    with Image.open(tmp_path / "out/train/3/00003.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), images[3])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-images-idx3-ubyte", lambda c: c[:-1], "cut short: 1567 of 1568"),
        ("t10k-images-idx3-ubyte", lambda c: b"\x00\x00\x0d" + c[3:], "no idx file"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0b", "label 11; there are 10"),
        ("t10k-labels-idx1-ubyte", lambda c: made.idx(np.zeros(3, np.uint8)), "3 labels"),
        ("t10k-labels-idx1-ubyte", lambda c: b"", "no idx file"),
        ("t10k-images-idx3-ubyte", lambda c: c[:4] + b"\xff" * 12, "cut short"),
    ],
)
def test_a_bad_idx_file(name: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    files = {key.removesuffix(".gz"): gzip.decompress(content) for key, content in made.mnist().items()}
    files[name] = change(files[name])
    with pytest.raises(UserError, match=message):
        prepared("mnist", files, tmp_path, allow_partial=True)
