"""CIFAR's batches are Python pickles, a format that can run code. Here it cannot: only plain values are made.

numpy itself is not let in either: its arrays are rebuilt here, from bytes the file does hold.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from fixres.errors import UserError


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


def read_plain_pickle(content: bytes, where: str) -> Any:
    """Return the dictionaries, lists, numbers, bytes and arrays of bytes in a pickle.

    Raises:
        UserError: damaged, or it asks for anything else, which is not loaded.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises whatever it leads to
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{where} is refused: {reason[0][:160] if reason else type(error).__name__}\n"
            "  it is damaged, or not what was published; fetch the archive again"
        ) from error
