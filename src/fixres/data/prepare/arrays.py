"""CIFAR, MNIST and Fashion-MNIST: arrays to PNG files, which lose nothing."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.data.prepare.parts import Job, Picture, folder_name
from fixres.data.prepare.plainpickle import read_plain_pickle
from fixres.errors import UserError
from fixres.io.archives import members

_CIFAR_SHAPE = (3, 32, 32)
_MNIST_SIDE = 28
_MAX_IDX_BYTES = 2**28
_FASHION = (
    ("T-shirt-top", "Trouser", "Pullover", "Dress", "Coat"),
    ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def read_cifar10(job: Job) -> Iterator[Picture]:
    """Yield CIFAR-10 from its five training batches and its test batch."""
    batches = {f"data_batch_{i}": "train" for i in range(1, 6)} | {"test_batch": "test"}
    yield from _cifar(job, batches, "batches.meta", b"label_names", b"labels")


def read_cifar100(job: Job) -> Iterator[Picture]:
    """Yield CIFAR-100 under its fine labels."""
    yield from _cifar(job, {"train": "train", "test": "test"}, "meta", b"fine_label_names", b"fine_labels")


def _cifar(job: Job, batches: dict[str, str], meta: str, names_key: bytes, labels_key: bytes) -> Iterator[Picture]:
    path = job.found["archive"]
    contents = {
        name: member.read()
        for member in members(path)
        if (name := member.name.rsplit("/", 1)[-1]) in batches or name == meta
    }
    absent = [name for name in (meta, *batches) if name not in contents]
    if absent:
        raise UserError(
            f"{path} does not hold {', '.join(absent)}\n  it is not the archive of this set; fetch it again"
        )
    table = _dictionary(contents.pop(meta), f"{meta} of {path}")
    classes = [folder_name(_text(name)) for name in _get(table, names_key, f"{meta} of {path}")]
    for name, split in batches.items():
        where = f"{name} of {path}"
        batch = _dictionary(contents.pop(name), where)
        pixels = np.asarray(_get(batch, b"data", where))
        labels = list(_get(batch, labels_key, where))
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape != (len(labels), 3 * 32 * 32):
            raise UserError(f"{where} does not hold a row of 3,072 bytes for each of its {len(labels)} labels")
        for i, label in enumerate(labels):
            if not isinstance(label, int) or not 0 <= label < len(classes):
                raise UserError(f"{where} holds the label {str(label)[:20]}; there are {len(classes)} classes")
            picture = np.ascontiguousarray(pixels[i].reshape(_CIFAR_SHAPE).transpose(1, 2, 0))
            yield _png(split, classes[label], f"{name}_{i:05}.png", picture)


def _dictionary(content: bytes, where: str) -> dict[Any, Any]:
    found = read_plain_pickle(content, where)
    if not isinstance(found, dict):
        raise UserError(f"{where} holds no table\n  fetch the archive again")
    return found


def _get(table: dict[Any, Any], key: bytes, where: str) -> Any:
    # Written by Python 2, whose strings are bytes; a copy written by Python 3 has text.
    value = table.get(key, table.get(key.decode()))
    if value is None:
        raise UserError(f"{where} holds no '{key.decode()}'\n  fetch the archive again")
    return value


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def read_mnist(job: Job) -> Iterator[Picture]:
    """Yield MNIST; classes are the digits."""
    yield from _idx_pictures(job, [str(digit) for digit in range(10)])


def read_fashion(job: Job) -> Iterator[Picture]:
    """Yield Fashion-MNIST; the number in front of a class's name keeps the published order."""
    yield from _idx_pictures(job, [f"{i}.{name}" for i, name in enumerate([*_FASHION[0], *_FASHION[1]])])


def _idx_pictures(job: Job, classes: Sequence[str]) -> Iterator[Picture]:
    for split in ("train", "test"):
        path = job.found[f"{split}_images"]
        pixels = _read_idx(path, 3)
        labels = _read_idx(job.found[f"{split}_labels"], 1)
        if pixels.shape != (len(labels), _MNIST_SIDE, _MNIST_SIDE):
            raise UserError(
                f"{path} holds an array of {pixels.shape}; there are {len(labels)} labels for 28 x 28 pixels"
            )
        if len(labels) and labels.max() >= len(classes):
            raise UserError(f"{job.found[f'{split}_labels']} holds the label {labels.max()}; there are {len(classes)}")
        for i, label in enumerate(labels.tolist()):
            yield _png(split, classes[label], f"{i:05}.png", pixels[i])


def _read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of an idx file: 0, 0, 8 (unsigned bytes), dimensions, then the sizes, big-endian."""
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if is_packed else path.open("rb") as stream:
            content = stream.read(_MAX_IDX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or cut short ({error})\n  fetch it again") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"{path} is no idx file of unsigned bytes in {dimensions} dimension(s)\n  fetch it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = int(np.prod([int(n) for n in shape], dtype=object))
    if len(content) - start != expected:
        raise UserError(f"{path} is cut short: {len(content) - start} of {expected} bytes of values\n  fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _png(split: str, label: str, name: str, pixels: npt.NDArray[np.uint8]) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    content = buffer.getvalue()
    return Picture(split, label, name, len(content), lambda: content)
