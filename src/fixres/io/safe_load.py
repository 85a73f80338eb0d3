"""Reading files of unknown authors: nothing in them runs, and nothing is allocated that they do not hold.

torch's own reader of plain data builds what is read. This module says beforehand which objects it would refuse, keeps
archives that unpack to more than they are away from it, and checks afterwards that the tensors fit into their file.
"""

from __future__ import annotations

import errno
import functools
import json
import math
import mmap
import pickle
import re
import struct
import threading
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_safe_globals, safe_globals

from fixres.errors import UserError
from fixres.io.pickle_scan import DAMAGED, RefusedError, Scan

MAX_ENTRIES = 200_000
"""Entries of a zip archive, or tensors of a safetensors file."""
MAX_PICKLE = 256 * 2**20
"""Bytes of the pickle in a zip archive: names and shapes, a few hundred kilobytes for the largest networks."""
MAX_HEADER = 10 * 10**6
"""Bytes of a safetensors header: names and shapes, a few hundred kilobytes for the largest networks."""
MAX_DEPTH = 100
"""Containers inside one another."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOOKS = (
    (b"version https://git-lfs", "looks like a Git LFS pointer, not the file itself: run `git lfs pull` beside it"),
    (b"\x1f\x8b", "looks like a gzip archive: unpack it first"),
    (b"BZh", "looks like a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "looks like an xz archive: unpack it first"),
    (b"7z\xbc\xaf", "looks like a 7z archive: unpack it first"),
    (b"\x89HDF", "looks like HDF5, as Keras writes it: export the tensors as safetensors"),
    (b"\x93NUMPY", "looks like a NumPy array, not a network's tensors"),
)
_FAILURES = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ImportError),
    *(AssertionError, ArithmeticError, MemoryError, SystemError, struct.error),
)
_READING = threading.Lock()
"""Held while torch's list of what it may build, which is one for the process, is longer than usual."""


class _Inert:
    """Stands in for a value beside the weights: keeps what it is made of, and does nothing."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _scalar(dtype: Any, data: Any) -> Any:
    """Return a number or word as numpy has it, but never by numpy's own hand: that takes bytes for addresses."""
    spelled = dtype.state[1], dtype.parts[0]
    is_plain = all(isinstance(part, str) for part in spelled) and isinstance(data, bytes)
    if is_plain and re.fullmatch(r"[<>=|][biufcSU]\d+", "".join(spelled)):
        return np.frombuffer(data, "".join(spelled), 1)[0]
    return _Inert(data)


@functools.cache
def _beside_weights() -> tuple[tuple[Any, str], ...]:
    """Return what torch may build beyond its own list, as (object, name): what training programs keep with weights.

    Stand-ins but for the namespace: a real array is made of any shape, a real list of any tensor. They have the name
    of what they stand for, which messages show.
    """
    paths = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    dates = ("date", "datetime", "time", "timedelta", "timezone")
    names = [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in paths]
    names += ["numpy.dtype", "numpy.ndarray", "types.SimpleNamespace", *(f"datetime.{name}" for name in dates)]
    made: dict[str, Any] = {name: type(name.rpartition(".")[2], (_Inert,), {}) for name in names}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        made |= {f"{core}._reconstruct": made["numpy.ndarray"], f"{core}.scalar": _scalar}
    for module, of_dict, of_list in (("collections", "defaultdict", "deque"), ("builtins", "dict", "list")):
        made |= {f"{module}.{of_dict}": lambda *_: {}, f"{module}.{of_list}": lambda *_: []}
    return tuple((value, name) for name, value in {**made, "argparse.Namespace": Namespace}.items())


def read_checkpoint(path: Path, *, trust: bool = False) -> Any:
    """Return what a .pt, .pth or .safetensors file holds, on the CPU.

    The kind of file is told by its content, never by its name. Tensors and plain values are read, and what training
    programs keep beside them: settings, numbers of numpy, and empty stand-ins for arrays, paths and dates. With `trust`
    a file that asks for other objects is loaded as its author wrote it, code included, after a warning that names
    them; a file that needs no trust, or is damaged, is treated the same with and without.

    Raises:
        UserError: missing, damaged, not a checkpoint, claims more memory than it holds, or asks for objects.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    with _explained(path):
        kind = _recognise(path)
        if kind == "safetensors":
            _check_safetensors(path)
            return load_file(path)
        found = _scan_zip(path) if kind == "zip" else _scan_legacy(path)
    with _READING, safe_globals([pair for pair in _beside_weights() if pair not in get_safe_globals()]):
        needs = found.needs()
        if needs and not trust:
            raise UserError(_refusal(path, needs))
        content, end = _load_with_torch(path, needs)
    taken = check_tensors(content, str(path))
    if not needs and taken > (end - found.start if found.start else path.stat().st_size):
        raise UserError(f"cannot read {path}: its tensors take {taken:,} bytes: more than its file holds")
    return content


def open_safetensors(path: Path) -> Any:
    """Open a safetensors file as a context, in which `get_tensor(name)` maps one of its tensors into memory.

    Raises:
        UserError: missing, damaged, or its header claims what it cannot hold.
    """
    with _explained(path):
        _check_safetensors(path)
        return safe_open(path, framework="pt")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what reading a file of any content leads to into errors for people."""
    try:
        yield
    except RefusedError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except OSError as error:
        # Some come of what the file claims; the others are the machine's word on it, such as permission denied.
        is_damage = error.errno in (None, errno.EINVAL)
        why = f"{DAMAGED} ({_first_line(error)})" if is_damage else (error.strerror or str(error)).lower()
        raise UserError(f"cannot read {path}: {why}") from None
    except (zipfile.BadZipFile, SafetensorError, *_FAILURES) as error:
        raise UserError(f"cannot read {path}: {DAMAGED} ({_first_line(error)})") from None


def check_tensors(content: Any, source: str) -> int:
    """Refuse tensors that would take more memory than their storages once copied, in nested dicts, lists and tuples.

    Returns:
        The bytes of all their storages.

    Raises:
        UserError: a tensor repeats its storage (stride 0), or is not an ordinary array, or the nesting is too deep.
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting: list[tuple[Any, int, str]] = [(content, 0, "")]
    while waiting:
        value, depth, name = waiting.pop()
        if isinstance(value, Tensor):
            place, size = _check_tensor(value, name, source)
            storages[place] = max(size, storages.get(place, 0))
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if depth >= MAX_DEPTH:
            raise UserError(f"cannot read {source}: its containers are nested more than {MAX_DEPTH} deep")
        children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ((name, v) for v in value)
        for key, child in children:
            if isinstance(child, Tensor | dict | list | tuple):
                waiting.append((child, depth + 1, key if isinstance(key, str) else name))
    return sum(storages.values())


def _check_tensor(tensor: Tensor, name: str, source: str) -> tuple[int, int]:
    """Return where the storage of an ordinary tensor lies, and its bytes."""
    label = f"'{name[:80]}'" if name else "a tensor"
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        kind = f"{tensor.dtype}, {tensor.layout} on {tensor.device}"
        raise UserError(f"cannot read {source}: {label} is {kind}: not an ordinary array")
    storage = tensor.untyped_storage()
    claimed, held = tensor.numel() * tensor.element_size(), storage.nbytes()
    if claimed > held:
        raise UserError(
            f"cannot read {source}: {label} is {claimed:,} bytes spread over a storage of {held:,}: "
            "copying it would take more than its file holds"
        )
    return storage.data_ptr(), held


def _recognise(path: Path) -> str:
    """Return `zip`, `safetensors` or `pickle`, by the first bytes.

    Raises:
        RefusedError: something else; the reason says what it looks like.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{":
        return "safetensors"
    if not head:
        raise RefusedError("it is empty: truncated, or the download failed")
    for magic, says in _LOOKS:
        if head.startswith(magic):
            raise RefusedError(f"it {says}")
    if head[257:262] == b"ustar":
        raise RefusedError("it looks like a tar archive: unpack it, or save it again with a current PyTorch")
    if head.startswith(b"\x80"):
        return "pickle"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise RefusedError("it looks like an HTML page: the download failed")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        raise RefusedError(f"it looks like text, not a checkpoint: {_first_line(head.decode('ascii'))[:60]!r}")
    raise RefusedError(DAMAGED)


def _scan_zip(path: Path) -> Scan:
    """Check an archive of torch.save against its own size, and return what its pickle asks for."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise RefusedError(f"it has {len(entries):,} entries, more than {MAX_ENTRIES:,}")
        sizes = _entry_sizes(entries, path.stat().st_size)
        root = entries[0].filename.partition("/")[0] if entries else ""
        name = f"{root}/data.pkl"
        if name not in sizes or f"{root}/constants.pkl" in sizes:
            raise RefusedError(
                "it is a TorchScript program, which is code: save the network's state_dict instead"
                if f"{root}/constants.pkl" in sizes
                else f"it is a zip archive but no checkpoint (it holds {', '.join(list(sizes)[:4])[:120]})"
            )
        if sizes[name] > MAX_PICKLE:
            raise RefusedError(f"its pickle is {sizes[name]:,} bytes, more than {MAX_PICKLE:,}")
        found = Scan()
        with archive.open(name) as stream:
            found.step(stream)
    return found


def _entry_sizes(entries: list[zipfile.ZipInfo], file_size: int) -> dict[str, int]:
    """Return the size of every entry, when the entries are what torch.save writes."""
    sizes: dict[str, int] = {}
    for entry in entries:
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(
                f"its entry '{name[:60]}' is compressed: torch.save never does, and it can grow unpacked"
            )
        if ".." in name.split("/") or name.startswith("/") or name in sizes:
            raise RefusedError(f"its entry '{name[:60]}' leaves the archive or comes twice")
        sizes[name] = entry.file_size
    if sum(sizes.values()) > file_size:
        raise RefusedError(f"its entries claim {sum(sizes.values()):,} bytes: more than its file holds")
    return sizes


def _scan_legacy(path: Path) -> Scan:
    """Step through the pickles of PyTorch before 1.6: magic, version, system, content, keys; then come the storages."""
    found = Scan()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        # A view reads no more than the file has, whatever length a string in the pickle claims.
        stream: IO[bytes] = view  # type: ignore[assignment]
        if _LEGACY_MAGIC not in found.step(stream):
            needs = found.needs()
            names = f", and it asks for {_listed(needs)}" if needs else ""
            raise RefusedError(f"it is a bare pickle, not a file of torch.save{names}")
        for _ in range(4):
            found.step(stream)
        found.start = view.tell()
    return found


def _check_safetensors(path: Path) -> None:
    """Check the header of a safetensors file before the library reads it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise RefusedError(f"its header claims {length:,} bytes: it is truncated or no safetensors file")
        if length > MAX_HEADER:
            raise RefusedError(f"its header is {length:,} bytes, more than {MAX_HEADER:,}: no network needs as many")
        try:
            header = json.loads(file.read(length))
        except RecursionError:
            raise RefusedError("its header is nested too deep: no safetensors file") from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(tensors) > MAX_ENTRIES:
        raise RefusedError(f"it has {len(tensors):,} tensors, more than {MAX_ENTRIES:,}")
    for name, entry in tensors.items():
        begin, end = entry["data_offsets"] if isinstance(entry, dict) else (0, math.inf)
        if not 0 <= begin <= end <= size - 8 - length:
            raise RefusedError(f"'{name[:80]}' ends after the file: it is truncated or no safetensors file")


def _load_with_torch(path: Path, needs: tuple[str, ...]) -> tuple[Any, int]:
    """Return the content and where reading ended; the objects in `needs` are the trusted ones, none for plain data."""
    try:
        # An open file, because torch.load chooses another reader by the ending of a name.
        with path.open("rb") as file, warnings.catch_warnings():
            if needs:
                warnings.warn(
                    f"{path}: loading it RUNS CODE of its author's choice, as --trust asked; objects: {_listed(needs)}",
                    UserWarning,
                    stacklevel=3,
                )
            else:
                warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=not needs)
            return content, file.tell()
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds more than tensors and plain values: refused") from None
    except _FAILURES as error:
        if needs and isinstance(error, ImportError | AttributeError):
            hint = "install the package that wrote it, or ask its author for a file with tensors only"
            raise UserError(f"{path} needs code that is not here: {_first_line(error)}\n  {hint}") from error
        raise UserError(f"cannot read {path}: {DAMAGED}") from error


def _refusal(path: Path, needs: tuple[str, ...]) -> str:
    return (
        f"{path} holds more than tensors and plain values: {_listed(needs)}\n"
        "  loading these would run code of its author's choice: refused\n"
        "  ask for a file with tensors only (safetensors), or, when you trust its author:\n"
        f"  fixres import {path} --model NAME --out DIR --trust"
    )


def _listed(names: tuple[str, ...], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name[:80] for name in names[:shown]) + more


def _first_line(error: BaseException | str) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
