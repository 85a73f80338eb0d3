"""CIFAR, MNIST and Fashion-MNIST: arrays to PNG files, which lose nothing.

CIFAR's batches are Python pickles, a format that can run code. Here it cannot: only plain values are made. numpy itself
is not let in either: its arrays are rebuilt here, from bytes the file does hold.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.data.prepare.parts import Job, Picture, folder_name
from fixres.errors import UserError
from fixres.io.archives import read_members

_CIFAR_SHAPE = (3, 32, 32)
_MNIST_SIDE = 28
_MAX_IDX_BYTES = 2**28
_FASHION = ("T-shirt-top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_cifar10(job: Job) -> Iterator[Picture]:
    """Yield CIFAR-10 from its five training batches and its test batch."""
    batches = {f"data_batch_{i}": "train" for i in range(1, 6)} | {"test_batch": "test"}
    yield from _cifar(job, batches, "batches.meta", b"label_names", b"labels")


def read_cifar100(job: Job) -> Iterator[Picture]:
    """Yield CIFAR-100 under its fine labels."""
    yield from _cifar(job, {"train": "train", "test": "test"}, "meta", b"fine_label_names", b"fine_labels")


def _cifar(job: Job, batches: dict[str, str], meta: str, names_key: bytes, labels_key: bytes) -> Iterator[Picture]:
    path = job.found["archive"]
    contents = read_members(path, [meta, *batches], "it is not the archive of this set; fetch it again")
    table = read_plain_pickle(contents.pop(meta), f"{meta} of {path}")
    classes = [folder_name(_text(name)) for name in _get(table, names_key, f"{meta} of {path}")]
    for name, split in batches.items():
        where = f"{name} of {path}"
        batch = read_plain_pickle(contents.pop(name), where)
        pixels = np.asarray(_get(batch, b"data", where))
        labels = list(_get(batch, labels_key, where))
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape != (len(labels), 3 * 32 * 32):
            raise UserError(f"{where} does not hold a row of 3,072 bytes for each of its {len(labels)} labels")
        for i, label in enumerate(labels):
            if not isinstance(label, int) or not 0 <= label < len(classes):
                raise UserError(f"{where} holds the label {str(label)[:20]}; there are {len(classes)} classes")
            picture = np.ascontiguousarray(pixels[i].reshape(_CIFAR_SHAPE).transpose(1, 2, 0))
            yield _png(split, classes[label], f"{name}_{i:05}.png", picture)


def _get(table: dict[Any, Any], key: bytes, where: str) -> Any:
    # Written by Python 2, whose strings are bytes; a copy written by Python 3 has text.
    value = table.get(key, table.get(key.decode()))
    if value is None:
        raise UserError(f"{where} holds no '{key.decode()}'\n  fetch the archive again")
    return value


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, *arguments: Any) -> None:
        self.code = arguments[0] if arguments else None

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which single bytes do not have."""


class _Array:
    """Stands in for a numpy array until its state has been read."""

    def __init__(self, *arguments: Any) -> None:
        self.pixels: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1") or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes")
        shape = tuple(int(n) for n in shape)
        if min(shape, default=0) < 0 or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of {shape} in {len(content)} bytes")
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray[Any, Any]:
        if self.pixels is None:
            raise ValueError("an array without content")
        return self.pixels


def _encode(text: str, codec: str) -> bytes:
    """Stand in for _codecs.encode, which is how protocol 2 writes bytes."""
    if codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the codec {codec!r:.40}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for one of the few names such a file needs."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return _ALLOWED[(module, name)]


def read_plain_pickle(content: bytes, where: str) -> dict[Any, Any]:
    """Return the dictionary in a pickle: of lists, numbers, bytes and arrays of bytes.

    Raises:
        UserError: damaged, no dictionary, or it asks for anything else, which is not loaded.
    """
    try:
        found = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises whatever it leads to
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{where} is refused: {reason[0][:160] if reason else type(error).__name__}\n"
            "  it is damaged, or not what was published; fetch the archive again"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{where} holds no table\n  fetch the archive again")
    return found


def read_mnist(job: Job) -> Iterator[Picture]:
    """Yield MNIST; classes are the digits."""
    yield from _idx_pictures(job, [str(digit) for digit in range(10)])


def read_fashion(job: Job) -> Iterator[Picture]:
    """Yield Fashion-MNIST; the number in front of a class's name keeps the published order."""
    yield from _idx_pictures(job, [f"{i}.{name}" for i, name in enumerate(_FASHION)])


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
