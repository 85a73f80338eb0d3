"""What a pickle would do, found without doing it: the names it asks for, the memory it claims."""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

import torch

MAX_OPCODES = 20_000_000
"""A training checkpoint of a thousand tensors takes about 10^5."""
MAX_DIMENSIONS = 64

# What may be called. Fewer than torch's own list: sparse, quantised, meta and subclassed tensors can claim memory that
# the file does not hold, and so can a tensor type or a bytearray called with a number.
_MAKERS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
    }
)
_COLLECTIONS = frozenset({"builtins.set", "collections.Counter", "collections.OrderedDict"})
_ELEMENT_SIZES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "Untyped", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_STORAGE = re.compile(r"torch\.(?:storage\.)?(\w+)Storage")

_CONSTANT_NAMES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_CONSTANTS = frozenset(_CONSTANT_NAMES.split())
# The operations of torch's reader of plain data, which are those of protocol 2 that torch.save writes.
_PLAIN_NAMES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET APPEND APPENDS SETITEM SETITEMS GLOBAL REDUCE "
    "NEWOBJ BUILD BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT"
)
_PLAIN = frozenset(_PLAIN_NAMES.split())


class RefusedError(Exception):
    """The file claims what it cannot hold, or is no pickle; the reason completes `cannot read FILE: `."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    num_bytes: int
    element_size: int


@dataclass(frozen=True)
class _Made:
    """The result of a call that was not made."""

    maker: str


_OTHER = object()
"""A container or value whose content decides nothing."""
_MARK = object()


@dataclass
class Inspection:
    """What one file's pickles ask for."""

    needs: dict[str, None] = field(default_factory=dict)
    """Names of the objects that are not plain data, in the order of the file."""
    storages: dict[str, int] = field(default_factory=dict)
    """Bytes each storage claims, by its key."""
    opcodes: int = 0


def inspect(stream: IO[bytes], found: Inspection) -> Any:
    """Step through the next pickle of `stream`, add what it asks for to `found`, and return an image of its value.

    Nothing is imported or called. Numbers, strings, tuples and lists are themselves in the image; everything else is
    a placeholder.

    Raises:
        RefusedError: it is damaged, or claims memory beyond its own storages.
    """
    machine = _Machine(found)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            found.opcodes += 1
            if found.opcodes > MAX_OPCODES:
                raise RefusedError(f"its pickle has more than {MAX_OPCODES:,} operations")
            machine.step(opcode.name, argument)
        return machine.stack[-1]
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RefusedError(f"it is truncated or no checkpoint (damaged pickle: {str(error)[:120]})") from None


class _Machine:
    """The stack machine of pickle, with placeholders for everything that would be built."""

    def __init__(self, found: Inspection) -> None:
        self.found = found
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation."""
        if name not in _PLAIN:
            # Python's own pickle does these too, so the names behind them are still found.
            if name not in _CONSTANTS and name not in _STEPS:
                raise RefusedError(f"its pickle uses the operation {name}, which no checkpoint needs")
            self.found.needs.setdefault(f"a newer or older kind of pickle ({name})")
        if name in _CONSTANTS:
            self.stack.append(argument)
        else:
            _STEPS[name](self, argument)

    def pop_to_mark(self) -> list[Any]:
        """Return what lies above the last mark, and remove both."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def push_global(self, name: str) -> None:
        """Push the image of a name."""
        name = name.replace("__builtin__.", "builtins.", 1) if name.startswith("__builtin__.") else name
        if name not in _MAKERS and not _is_value(name):
            self.found.needs.setdefault(name)
        self.stack.append(_Global(name))

    def call(self, maker: Any, arguments: Any) -> _Made:
        """Judge a call and return its image."""
        if not isinstance(maker, _Global):
            self.found.needs.setdefault("a call of a computed value")
            return _Made("?")
        name = maker.name
        if name.startswith("torch._utils._rebuild_tensor") and name in _MAKERS:
            _check_tensor(arguments)
        elif name == "torch._tensor._rebuild_from_type_v2":
            function, _, inner, *_ = arguments
            self.call(function, inner)
        elif name in _COLLECTIONS:
            _check_collection(name, arguments)
        elif name not in _MAKERS or not _harmless(name, arguments):
            self.found.needs.setdefault(name)
        return _Made(name)

    def build(self) -> None:
        """Judge the setting of an object's state: only a dictionary's own attributes are data."""
        self.stack.pop()
        target = self.stack[-1]
        if not (isinstance(target, _Made) and target.maker == "collections.OrderedDict"):
            self.found.needs.setdefault(target.maker if isinstance(target, _Made) else "the state of a plain value")

    def persistent(self, identity: Any) -> Any:
        """Return the image of a storage: ("storage", type, key, location, elements[, view])."""
        if not isinstance(identity, tuple) or not identity:
            raise RefusedError("it is truncated or no checkpoint (a storage without a description)")
        if identity[0] == "module":
            return identity[1]
        kind, storage_type, key, _, elements, *view = identity
        known = _STORAGE.fullmatch(storage_type.name)
        if kind != "storage" or known is None or not isinstance(elements, int) or elements < 0:
            raise RefusedError("it is truncated or no checkpoint (a storage of no known kind)")
        if not isinstance(key, str | int):
            raise RefusedError("it is truncated or no checkpoint (a storage without a name)")
        size = _ELEMENT_SIZES[known[1]]
        key = str(key)
        self.found.storages[key] = max(self.found.storages.get(key, 0), elements * size)
        if view and view[0] is not None:
            _, offset, length = view[0]
            if offset < 0 or length < 0 or offset + length > elements:
                raise RefusedError(f"a view goes beyond its storage '{key[:40]}'")
            elements = length
        return _Storage(elements * size, size)


def _is_value(name: str) -> bool:
    """Return whether a name stands for a type of tensor, storage or number: data when it is not called."""
    module, _, leaf = name.rpartition(".")
    if module == "torch" and isinstance(vars(torch).get(leaf), torch.dtype):
        return True
    storage = _STORAGE.fullmatch(name)
    return name == "torch.Tensor" or (storage is not None and storage[1] in _ELEMENT_SIZES)


def _harmless(name: str, arguments: Any) -> bool:
    if name == "_codecs.encode":  # how protocol 2 writes bytes; other codecs are modules to import
        return arguments[1] in ("latin1", "latin-1")
    if name == "builtins.bytearray":  # called with a number it allocates as many bytes
        return all(
            isinstance(a, str | bytes) or (isinstance(a, _Made) and a.maker == "_codecs.encode") for a in arguments
        )
    return True


def _check_collection(name: str, arguments: Any) -> None:
    for items in arguments if isinstance(arguments, tuple) else ():
        if isinstance(items, list | tuple):
            are_pairs = name == "collections.OrderedDict"
            _check_keys(item[0] if are_pairs and isinstance(item, list | tuple) and item else item for item in items)


def _check_tensor(arguments: Any) -> None:
    """Refuse a tensor that reaches beyond its storage: torch would enlarge the storage, of any size, to suit."""
    storage, offset, size, stride = arguments[:4]
    lengths = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    plain = all(isinstance(n, int) and n >= 0 for n in lengths) and len(size) == len(stride) <= MAX_DIMENSIONS
    if not isinstance(storage, _Storage) or not plain:
        raise RefusedError("it holds a tensor whose shape is no list of sizes")
    width = storage.element_size
    if len(arguments) > 6 and isinstance(arguments[6], _Global):
        width = vars(torch)[arguments[6].name.rpartition(".")[2]].itemsize
    count = math.prod(size)
    if count == 0:
        return
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if max(count, reach) * width > storage.num_bytes:
        shape = "x".join(map(str, size))[:60] or "1"
        raise RefusedError(
            f"it holds a tensor of {shape} elements ({count * width:,} bytes) in a storage of "
            f"{storage.num_bytes:,} bytes: more than its file holds"
        )


def _reduce(machine: _Machine, _: Any) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    machine.stack.pop()
    _reduce(machine, None)


def _instance(machine: _Machine, name: Any) -> None:
    arguments = machine.pop_to_mark()
    machine.push_global(name.replace(" ", ".", 1))
    machine.stack[-1] = machine.call(machine.stack[-1], tuple(arguments))


def _object(machine: _Machine, _: Any) -> None:
    cls, *arguments = machine.pop_to_mark()
    machine.stack.append(machine.call(cls, tuple(arguments)))


def _stack_global(machine: _Machine, _: Any) -> None:
    name = machine.stack.pop()
    module = machine.stack.pop()
    machine.push_global(f"{module}.{name}")


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return step


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _drop(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        del machine.stack[-count:]

    return step


def _extend(machine: _Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(items)


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse nested tuples as keys: one that holds another twice, many times over, is hashed for ever."""
    for key in keys:
        if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
            raise RefusedError("it holds a dictionary or set whose keys are no words or numbers")


def _set_items(machine: _Machine, _: Any) -> None:
    _check_keys(machine.pop_to_mark()[::2])


def _set_item(machine: _Machine, _: Any) -> None:
    _check_keys(machine.stack[-2:-1])
    del machine.stack[-2:]


def _add_items(machine: _Machine, _: Any) -> None:
    _check_keys(machine.pop_to_mark())


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_to_mark()


def _dict(machine: _Machine, _: Any) -> None:
    _set_items(machine, None)
    machine.stack.append(_OTHER)


def _frozenset(machine: _Machine, _: Any) -> None:
    _add_items(machine, None)
    machine.stack.append(_OTHER)


def _get(machine: _Machine, at: Any) -> None:
    machine.stack.append(machine.memo[int(at)])


def _put(machine: _Machine, at: Any) -> None:
    machine.memo[int(at)] = machine.stack[-1]


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _m, _a: None),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "MARK": _push(lambda: _MARK),
    "EMPTY_TUPLE": _push(lambda: ()),
    "EMPTY_LIST": _push(list),
    **dict.fromkeys(("EMPTY_DICT", "EMPTY_SET"), _push(lambda: _OTHER)),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "DICT": _dict,
    "FROZENSET": _frozenset,
    "POP": _drop(1),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "ADDITEMS": _add_items,
    "APPEND": lambda machine, _: _extend(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_to_mark()),
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GLOBAL": lambda machine, name: machine.push_global(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": _stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "NEWOBJ_EX": _new_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stack.append(machine.persistent(machine.stack.pop())),
}
