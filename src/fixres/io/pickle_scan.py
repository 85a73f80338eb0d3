"""Stepping through a pickle without doing it: what it asks for, and what torch's reader should not meet."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from torch.serialization import get_unsafe_globals_in_checkpoint

MAX_OPCODES = 20_000_000
"""Operations of a pickle; a training checkpoint of a thousand tensors takes about 10^5."""

DAMAGED = "it is truncated or no checkpoint"
"""What is said of a file that ends too early, or was never one."""
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


class RefusedError(Exception):
    """The file claims what it cannot hold, or is no checkpoint; the reason completes `cannot read FILE: `."""


@dataclass
class Scan:
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
            RefusedError: it is damaged, or too long.
        """
        machine = _Machine(self)
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream), 1):
                if count > MAX_OPCODES:
                    raise RefusedError(f"its pickle has more than {MAX_OPCODES:,} operations")
                if opcode.name not in _PLAIN:
                    self.odd.setdefault(f"a newer or older kind of pickle ({opcode.name})")
                machine.step(opcode, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RefusedError(f"{DAMAGED} (damaged pickle: {str(error)[:120]})") from None
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

    def __init__(self, found: Scan) -> None:
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
            raise RefusedError("it holds a dictionary or set whose keys are no words or numbers")


def _number_of_parts(images: Iterable[_Image]) -> int:
    """Return how many values all of them hold, or somewhat more than is allowed."""
    return min(sum(image.parts for image in images), MAX_OPCODES + 1)
