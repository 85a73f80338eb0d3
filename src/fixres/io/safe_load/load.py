"""Reading files of unknown authors: nothing in them runs, and nothing is allocated that they do not hold."""

from __future__ import annotations

import json
import math
import mmap
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fixres.errors import UserError
from fixres.io.safe_load.pickle_scan import Inspection, RefusedError, inspect

MAX_ENTRIES = 200_000
"""Entries of a zip archive, or tensors of a safetensors file."""
MAX_PICKLE = 256 * 2**20
"""Bytes of the pickle in a zip archive: names and shapes, a few hundred kilobytes for the largest networks."""
MAX_HEADER = 100 * 2**20
"""Bytes of a safetensors header."""
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
_FAILURES = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError)


def load(path: Path, *, trust: bool = False) -> Any:
    """Return what a .pt, .pth or .safetensors file holds, on the CPU.

    The kind of file is told by its content, never by its name. Only tensors and plain values are read. With `trust`
    a file that asks for other objects is loaded as its author wrote it, code included, after a warning that names
    them; a file that needs no trust, or is damaged, is treated the same with and without.

    Raises:
        UserError: missing, damaged, not a checkpoint, claims more memory than it holds, or asks for objects.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        kind = _recognise(path)
        if kind == "safetensors":
            _check_safetensors(path)
            return load_file(path)
        found = _inspect_zip(path) if kind == "zip" else _inspect_legacy(path)
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise UserError(f"cannot read {path}: it is truncated or no checkpoint ({error})") from None
    except (SafetensorError, RefusedError, *_FAILURES) as error:
        plain = isinstance(error, RefusedError)
        reason = str(error) if plain else f"it is truncated or no checkpoint ({_first_line(error)})"
        raise UserError(f"cannot read {path}: {reason}") from None
    needs = tuple(found.needs)
    if needs and not trust:
        raise UserError(_refusal(path, needs))
    content = _load_with_torch(path, needs)
    check_tensors(content, str(path))
    return content


def check_tensors(content: Any, source: str) -> None:
    """Refuse tensors that would take more memory than their storages once copied, in nested dicts, lists and tuples.

    Raises:
        UserError: a tensor repeats its storage (stride 0), or is not an ordinary array, or the nesting is too deep.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int, str]] = [(content, 0, "")]
    while waiting:
        value, depth, name = waiting.pop()
        if isinstance(value, Tensor):
            _check_tensor(value, name, source)
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if depth >= MAX_DEPTH:
            raise UserError(f"cannot read {source}: its containers are nested more than {MAX_DEPTH} deep")
        children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ((name, v) for v in value)
        for key, child in children:
            if isinstance(child, Tensor | dict | list | tuple):
                waiting.append((child, depth + 1, key if isinstance(key, str) else name))


def _check_tensor(tensor: Tensor, name: str, source: str) -> None:
    label = f"'{name[:80]}'" if name else "a tensor"
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise UserError(f"cannot read {source}: {label} is {tensor.layout} on {tensor.device}, not an ordinary array")
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > held:
        raise UserError(
            f"cannot read {source}: {label} is {claimed:,} bytes spread over a storage of {held:,}: "
            "copying it would take memory that the file does not hold"
        )


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
    raise RefusedError("it is truncated or no checkpoint")


def _inspect_zip(path: Path) -> Inspection:
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
        found = Inspection()
        with archive.open(name) as stream:
            inspect(stream, found)
    for key, claimed in found.storages.items():
        if claimed > sizes.get(f"{root}/data/{key}", 0):
            raise RefusedError(f"storage '{key[:40]}' claims {claimed:,} bytes: more than its file holds")
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


def _inspect_legacy(path: Path) -> Inspection:
    """Check a file of PyTorch before 1.6: five pickles (magic, version, system, content, keys), then the storages."""
    found = Inspection()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        # A view reads no more than the file has, whatever length a string in the pickle claims.
        stream: IO[bytes] = view  # type: ignore[assignment]
        magic = inspect(stream, found)
        if magic != _LEGACY_MAGIC:
            names = f", and it asks for {_listed(tuple(found.needs))}" if found.needs else ""
            raise RefusedError(f"it is a bare pickle, not a file of torch.save{names}")
        for _ in range(3):
            inspect(stream, found)
        keys = inspect(stream, found)
        size = len(view)
    claimed = sum(found.storages.values())
    if claimed > size:
        raise RefusedError(f"its storages claim {claimed:,} bytes: more than its file holds")
    if not isinstance(keys, list) or {str(k) for k in keys if isinstance(k, str | int)} != set(found.storages):
        raise RefusedError("it is truncated or no checkpoint (its storages are not those its tensors name)")
    return found


def _check_safetensors(path: Path) -> None:
    """Check the header of a safetensors file before the library reads it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MAX_HEADER, size - 8):
            raise RefusedError(f"its header claims {length:,} bytes: it is truncated or no safetensors file")
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


def _load_with_torch(path: Path, needs: tuple[str, ...]) -> Any:
    """Read an inspected file; the objects in `needs` are the trusted ones, none for a file of plain data."""
    if needs:
        warnings.warn(
            f"{path}: loading it RUNS CODE of its author's choice, as --trust asked; objects: {_listed(needs)}",
            UserWarning,
            stacklevel=4,
        )
    try:
        # An open file, because torch.load chooses another reader by the ending of a name.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=not needs)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors and plain values: refused ({_first_line(error)})") from None
    except _FAILURES as error:
        if needs and isinstance(error, ImportError | AttributeError):
            hint = "install the package that wrote it, or ask its author for a file with tensors only"
            raise UserError(f"{path} needs code that is not here: {_first_line(error)}\n  {hint}") from error
        raise UserError(f"cannot read {path}: it is truncated or no checkpoint ({_first_line(error)})") from error


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
