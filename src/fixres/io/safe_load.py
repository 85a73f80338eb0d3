"""Reading files of unknown authors: nothing in them runs, and nothing is allocated that they do not hold.

torch's own reader of plain data builds what is read. This module says beforehand which objects it would refuse, keeps
archives that unpack to more than they are away from it, and checks afterwards that the tensors fit into their file.
"""

from __future__ import annotations

import functools
import io
import json
import math
import mmap
import pickle
import pickletools
import re
import struct
import threading
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_safe_globals, get_unsafe_globals_in_checkpoint, safe_globals

from fixres.errors import UserError

MAX_ENTRIES = 200_000
"""Entries of a zip archive, or tensors of a safetensors file."""
MAX_PICKLE = 256 * 2**20
"""Bytes of the pickle in a zip archive: names and shapes, a few hundred kilobytes for the largest networks."""
MAX_OPCODES = 20_000_000
"""Operations of a pickle; a training checkpoint of a thousand tensors takes about 10^5."""
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
_DAMAGED = "it is truncated or no checkpoint"
_FAILURES = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ImportError),
    *(AssertionError, ArithmeticError, MemoryError, SystemError, struct.error),
)
# The operations of torch's reader of plain data, which are those of protocol 2 that torch.save writes.
_PLAIN_NAMES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET APPEND APPENDS SETITEM SETITEMS GLOBAL REDUCE "
    "NEWOBJ BUILD BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT"
)
_PLAIN = frozenset(_PLAIN_NAMES.split())
_ITERATING = frozenset(
    [f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")]
    + ["collections.Counter", "collections.OrderedDict", "torch.Size"]
)
"""What goes through its argument when it is called."""
_READING = threading.Lock()
"""Held while torch's list of what it may build, which is one for the process, is longer than usual."""


class _RefusedError(Exception):
    """The file claims what it cannot hold, or is no checkpoint; the reason completes `cannot read FILE: `."""


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


def load(path: Path, *, trust: bool = False) -> Any:
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
    try:
        kind = _recognise(path)
        if kind == "safetensors":
            _check_safetensors(path)
            return load_file(path)
        found = _scan_zip(path) if kind == "zip" else _scan_legacy(path)
    except _RefusedError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except (zipfile.BadZipFile, SafetensorError, *_FAILURES) as error:
        raise UserError(f"cannot read {path}: {_DAMAGED} ({_first_line(error)})") from None
    with _READING, safe_globals([pair for pair in _beside_weights() if pair not in get_safe_globals()]):
        needs = found.needs()
        if needs and not trust:
            raise UserError(_refusal(path, needs))
        content, end = _load_with_torch(path, needs)
    taken = check_tensors(content, str(path))
    if not needs and taken > (end - found.start if found.start else path.stat().st_size):
        raise UserError(f"cannot read {path}: its tensors take {taken:,} bytes: more than its file holds")
    return content


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
        _RefusedError: something else; the reason says what it looks like.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{":
        return "safetensors"
    if not head:
        raise _RefusedError("it is empty: truncated, or the download failed")
    for magic, says in _LOOKS:
        if head.startswith(magic):
            raise _RefusedError(f"it {says}")
    if head[257:262] == b"ustar":
        raise _RefusedError("it looks like a tar archive: unpack it, or save it again with a current PyTorch")
    if head.startswith(b"\x80"):
        return "pickle"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise _RefusedError("it looks like an HTML page: the download failed")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        raise _RefusedError(f"it looks like text, not a checkpoint: {_first_line(head.decode('ascii'))[:60]!r}")
    raise _RefusedError(_DAMAGED)


@dataclass
class _Scan:
    """What the pickles of a file ask for, found without doing it."""

    names: dict[str, None] = field(default_factory=dict)
    """What they import."""
    odd: dict[str, None] = field(default_factory=dict)
    """What torch's reader cannot do, or does at a price."""
    start: int = 0
    """Where the storages begin, for a file of PyTorch before 1.6."""

    def step(self, stream: IO[bytes]) -> list[Any]:
        """Step through the next pickle of `stream` and return its words and numbers; nothing is imported or called.

        Raises:
            _RefusedError: it is damaged, or too long.
        """
        machine = _Machine(self)
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream), 1):
                if count > MAX_OPCODES:
                    raise _RefusedError(f"its pickle has more than {MAX_OPCODES:,} operations")
                if opcode.name not in _PLAIN:
                    self.odd.setdefault(f"a newer or older kind of pickle ({opcode.name})")
                machine.step(opcode, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise _RefusedError(f"{_DAMAGED} (damaged pickle: {str(error)[:120]})") from None
        return machine.constants

    def needs(self) -> tuple[str, ...]:
        """Return what torch's reader would not build, by its own list."""
        lines = "".join("c{}\n{}\n".format(*name.rpartition(".")[::2]) for name in self.names)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("w/data.pkl", b"\x80\x02" + lines.encode("utf-8", "surrogatepass") + b".")
            file.writestr("w/version", b"3")
        archive.seek(0)
        return (*sorted(get_unsafe_globals_in_checkpoint(archive)), *self.odd)


@dataclass
class _Image:
    """What an operation of a pickle leaves on the stack."""

    parts: int = 1
    """How many values hashing it visits: those of a tuple inside others once for every way to it."""
    name: str = ""
    """What was imported."""
    made_by: str = ""
    """What was called for it, so that it may be a tensor."""
    first: _Image | None = None
    """The first part of a tuple."""


class _Machine:
    """Keeps the stack of a pickle, to refuse what torch's reader would hash, iterate or allocate without an end."""

    def __init__(self, found: _Scan) -> None:
        self.found = found
        self.constants: list[Any] = []
        self.stack: list[_Image | None] = []  # None: a mark
        self.memo: dict[int, _Image] = {}
        self.hashed = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Take from the stack what the operation takes, and put on it what stands for its result."""
        name = opcode.name
        if name.endswith("PUT") or name == "MEMOIZE":
            self.memo[len(self.memo) if argument is None else int(argument)] = self._top()
            return
        if name == "MARK":
            self.stack.append(None)
            return
        below, above = self._take(opcode)
        if name.endswith("GET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            imported = ".".join(map(str, self.constants[-2:])) if argument is None else argument.replace(" ", ".", 1)
            self.found.names.setdefault(imported)
            self.stack.append(_Image(name=imported))
        elif name in ("REDUCE", "NEWOBJ"):
            self._call(*below)
        elif name == "DUP":
            self.stack += below * 2
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
            inside = below[1:] + above
            self._keep(inside)
            if name.startswith("SETITEM"):
                self._hash(inside[::2])
            below[0].parts = _number_of_parts([below[0], *inside])
            self.stack.append(below[0])
        elif opcode.stack_after:
            if argument is not None:
                self.constants.append(argument)
            inside = below + above
            self._keep(inside)
            made_by = "a call" if name in ("BINPERSID", "PERSID", "OBJ", "NEWOBJ_EX") else ""
            self.stack.append(_Image(1 + _number_of_parts(inside), "", made_by, inside[0] if inside else None))

    def _top(self) -> _Image:
        top = self.stack[-1]
        if top is None:
            raise ValueError("a mark is no value")
        return top

    def _pop(self) -> _Image:
        top = self._top()
        self.stack.pop()
        return top

    def _take(self, opcode: pickletools.OpcodeInfo) -> tuple[list[_Image], list[_Image]]:
        """Return the values below the mark that the operation takes, and those above it."""
        before = opcode.stack_before
        above: list[_Image] = []
        if pickletools.markobject in before:
            while self.stack[-1] is not None:
                above.append(self._pop())
            self.stack.pop()
            before = before[: before.index(pickletools.markobject)]
        return [self._pop() for _ in before][::-1], above[::-1]

    def _keep(self, inside: list[_Image]) -> None:
        """Refuse what may be called with care only as a value: what holds it may call it out of sight."""
        for image in inside:
            if image.name in _ITERATING or image.name.endswith(".bytearray"):
                self.found.odd.setdefault(f"{image.name} as a value")

    def _call(self, called: _Image, arguments: _Image) -> None:
        first = arguments.first
        if called.name in _ITERATING:
            self._hash([arguments])
            if first is not None and first.made_by:
                self.found.odd.setdefault(f"a {called.name} of an object")  # a tensor can repeat one number for ever
        if called.name.endswith(".bytearray") and first is not None and first.made_by != "_codecs.encode":
            self.found.odd.setdefault("a bytearray of a number")  # torch would allocate as many bytes
        self.stack.append(_Image(made_by=called.name or "a call"))

    def _hash(self, keys: list[_Image]) -> None:
        """Count what is hashed: a tuple that holds another twice, many times over, would be hashed for ever."""
        self.hashed += _number_of_parts(keys)
        if self.hashed > MAX_OPCODES:
            raise _RefusedError("it holds a dictionary or set whose keys are no words or numbers")


def _number_of_parts(images: Iterable[_Image]) -> int:
    """Return how many values all of them hold, or somewhat more than is allowed."""
    return min(sum(image.parts for image in images), MAX_OPCODES + 1)


def _scan_zip(path: Path) -> _Scan:
    """Check an archive of torch.save against its own size, and return what its pickle asks for."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise _RefusedError(f"it has {len(entries):,} entries, more than {MAX_ENTRIES:,}")
        sizes = _entry_sizes(entries, path.stat().st_size)
        root = entries[0].filename.partition("/")[0] if entries else ""
        name = f"{root}/data.pkl"
        if name not in sizes or f"{root}/constants.pkl" in sizes:
            raise _RefusedError(
                "it is a TorchScript program, which is code: save the network's state_dict instead"
                if f"{root}/constants.pkl" in sizes
                else f"it is a zip archive but no checkpoint (it holds {', '.join(list(sizes)[:4])[:120]})"
            )
        if sizes[name] > MAX_PICKLE:
            raise _RefusedError(f"its pickle is {sizes[name]:,} bytes, more than {MAX_PICKLE:,}")
        found = _Scan()
        with archive.open(name) as stream:
            found.step(stream)
    return found


def _entry_sizes(entries: list[zipfile.ZipInfo], file_size: int) -> dict[str, int]:
    """Return the size of every entry, when the entries are what torch.save writes."""
    sizes: dict[str, int] = {}
    for entry in entries:
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _RefusedError(
                f"its entry '{name[:60]}' is compressed: torch.save never does, and it can grow unpacked"
            )
        if ".." in name.split("/") or name.startswith("/") or name in sizes:
            raise _RefusedError(f"its entry '{name[:60]}' leaves the archive or comes twice")
        sizes[name] = entry.file_size
    if sum(sizes.values()) > file_size:
        raise _RefusedError(f"its entries claim {sum(sizes.values()):,} bytes: more than its file holds")
    return sizes


def _scan_legacy(path: Path) -> _Scan:
    """Step through the pickles of PyTorch before 1.6: magic, version, system, content, keys; then come the storages."""
    found = _Scan()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        # A view reads no more than the file has, whatever length a string in the pickle claims.
        stream: IO[bytes] = view  # type: ignore[assignment]
        if _LEGACY_MAGIC not in found.step(stream):
            needs = found.needs()
            names = f", and it asks for {_listed(needs)}" if needs else ""
            raise _RefusedError(f"it is a bare pickle, not a file of torch.save{names}")
        for _ in range(4):
            found.step(stream)
        found.start = view.tell()
    return found


def _check_safetensors(path: Path) -> None:
    """Check the header of a safetensors file before the library reads it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MAX_HEADER, size - 8):
            raise _RefusedError(f"its header claims {length:,} bytes: it is truncated or no safetensors file")
        try:
            header = json.loads(file.read(length))
        except RecursionError:
            raise _RefusedError("its header is nested too deep: no safetensors file") from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(tensors) > MAX_ENTRIES:
        raise _RefusedError(f"it has {len(tensors):,} tensors, more than {MAX_ENTRIES:,}")
    for name, entry in tensors.items():
        begin, end = entry["data_offsets"] if isinstance(entry, dict) else (0, math.inf)
        if not 0 <= begin <= end <= size - 8 - length:
            raise _RefusedError(f"'{name[:80]}' ends after the file: it is truncated or no safetensors file")


def _load_with_torch(path: Path, needs: tuple[str, ...]) -> tuple[Any, int]:
    """Return the content and where reading ended; the objects in `needs` are the trusted ones, none for plain data."""
    try:
        # An open file, because torch.load chooses another reader by the ending of a name.
        with path.open("rb") as file, warnings.catch_warnings():
            if needs:
                warnings.warn(
                    f"{path}: loading it RUNS CODE of its author's choice, as --trust asked; objects: {_listed(needs)}",
                    UserWarning,
                    stacklevel=4,
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
        raise UserError(f"cannot read {path}: {_DAMAGED}") from error


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
