"""What a stage may move: the tensors of a network that each value of `moves` selects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.registry import MOVES, MovesEntry, add
from fixres.errors import UserError
from fixres.models.anatomy import has_parameters, head_names, is_inside, last_norms, last_stage
from fixres.models.build import architecture


def make_plan(
    model: nn.Module, moves: str, size: int, freeze: Sequence[str] = (), norm_statistics: str = "batch"
) -> Plan:
    """Return which tensors a stage at `size` may move.

    Args:
        model: the network.
        moves: a name in `registry.MOVES`, which says what each means.
        size: side in pixels of the stage.
        freeze: module names and name patterns of parameters that stay as they are all the same; with `all` only.
        norm_statistics: batch, or frozen: running statistics are used and stay.

    Raises:
        UserError: the network has no norm, statistics or stage of the kind, and the message names what suits it; a
            pattern that matches nothing, or patterns that leave nothing to train.
    """
    assert not freeze or moves == "all", "only moves all has anything to freeze"
    parameters = dict(model.named_parameters())
    selected = SELECT[moves](model, size)
    held: tuple[str, ...] = ()
    if norm_statistics == "frozen":
        selected, held = _with_frozen_statistics(model, moves, selected)
    kept = matching(parameters, freeze)
    trained = tuple(n for n in parameters if is_inside(n, selected.modules) and n not in kept)
    if kept and not trained:
        raise UserError(f"freeze {', '.join(freeze)} leaves nothing of '{architecture(model)}' to train")
    if not trained and not selected.norms:
        raise UserError(f"moves {moves} selects nothing of '{architecture(model)}'")
    frozen = frozen_modules(model, kept) if kept else ()
    norms = tuple(name for name in selected.norms if not is_inside(name, frozen))
    return Plan(
        selected.stands_for or moves,
        trained,
        norms,
        _statistics(model, norms),
        sum(parameters[n].numel() for n in trained),
        sum(p.numel() for p in parameters.values()),
        selected.whole,
        frozen,
        held,
    )


class Selection(NamedTuple):
    """What a value of `moves` selects of a network."""

    modules: tuple[str, ...]
    """Modules, or parameters of their own, that train."""
    norms: tuple[str, ...] = ()
    """Norms whose running statistics live."""
    whole: tuple[str, ...] = ()
    """Modules that train as a whole, their dropout and stochastic depth included; an empty name: the network."""
    stands_for: str = ""
    """The value of `moves` that this one is for this network; empty: itself."""


Select = Callable[[nn.Module, int], Selection]
"""What a value of `moves` selects of a network at a size in pixels; UserError where it does not suit the network."""


def _all(model: nn.Module, size: int) -> Selection:
    tops = dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters())
    return Selection(tuple(tops), _with_statistics(model, ""), whole=("",))


def _head_and_norm(model: nn.Module, size: int) -> Selection:
    found = last_norms(model, size)
    if not any(has_parameters(model.get_submodule(name)) for name in found):
        reason = "its last norm has no weights" if found else "it has no norm"
        raise UserError(
            f"moves head+norm does not suit '{architecture(model)}': {reason}\n  use moves: head, last-stage or all"
        )
    return Selection((*head_names(model), *found), _keeping(model, found))


def _last_stage(model: nn.Module, size: int) -> Selection:
    found = last_norms(model, size)
    heads = head_names(model)
    whole = last_stage(model, size, heads)
    live = dict.fromkeys(name for module in whole for name in _with_statistics(model, module))
    return Selection((*heads, *whole, *found), tuple(live | dict.fromkeys(_keeping(model, found))), whole)


def _auto(model: nn.Module, size: int) -> Selection:
    found = last_norms(model, size)
    norms = found if _keeping(model, found) == found else ()
    return Selection(head_names(model), norms, stands_for="head+stats" if norms else "head")


SELECT: dict[str, Select] = {
    "auto": _auto,
    "head": lambda model, _: Selection(head_names(model)),
    "head+stats": lambda model, size: Selection(norms=_tracked(model, size, "head+stats"), modules=head_names(model)),
    "head+norm": _head_and_norm,
    "last-stage": _last_stage,
    "stats": lambda model, size: Selection((), _tracked(model, size, "stats")),
    "all": _all,
}
"""The code of each entry of `registry.MOVES`."""


def register_moves(name: str, select: Select, entry: MovesEntry) -> None:
    """Make a value of `moves` known to recipes and to training; in other processes through FIXRES_PLUGINS.

    Raises:
        UserError: the name is taken or none.
    """
    add(MOVES, name, entry)
    SELECT[name] = select


def _tracked(model: nn.Module, size: int, moves: str) -> tuple[str, ...]:
    """Return the last norms, all of which must keep statistics."""
    found = last_norms(model, size)
    tracked = _keeping(model, found)
    if found and tracked == found:
        return found
    what = ", ".join(f"{n} ({type(model.get_submodule(n)).__name__})" for n in found if n not in tracked)
    reason = f"{what} keeps no running statistics" if found else "it has no norm"
    others = "head, head+norm or all" if found else "head, or moves: all"
    raise UserError(f"moves {moves} does not suit '{architecture(model)}': {reason}\n  use moves: {others}")


def _keeping(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _keeps_statistics(model.get_submodule(name)))


def _with_statistics(model: nn.Module, inside: str) -> tuple[str, ...]:
    """Return the norms with running statistics in a module, or in all of the network."""
    modules = model.get_submodule(inside).named_modules(prefix=inside)
    return tuple(name for name, module in modules if _keeps_statistics(module))


def _with_frozen_statistics(model: nn.Module, moves: str, selected: Selection) -> tuple[Selection, tuple[str, ...]]:
    """Return a selection no statistics of which move, and the norms that would have moved theirs."""
    alone = [name for name in selected.norms if not is_inside(name, selected.modules)]
    if alone and moves != "auto":
        raise UserError(
            f"moves {moves} moves the statistics of {alone[0]}, which norm_statistics frozen keeps\n"
            "  use moves: head, or norm_statistics: batch"
        )
    running = [name for name, module in model.named_modules() if _has_running_statistics(module)]
    is_whole = "" in selected.whole
    held = tuple(name for name in running if is_whole or name in selected.norms or is_inside(name, selected.whole))
    return selected._replace(norms=(), stands_for="head" if alone else selected.stands_for), held


def _has_running_statistics(module: nn.Module) -> bool:
    """Return whether a module keeps statistics of what it was given in training, of whatever kind of norm it is."""
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


def frozen_modules(model: nn.Module, kept: frozenset[str]) -> tuple[str, ...]:
    """Return the outermost modules that have parameters, all of them in `kept`."""
    frozen: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
        if name and own and kept.issuperset(own) and not is_inside(name, frozen):
            frozen.append(name)
    return tuple(frozen)


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def _statistics(model: nn.Module, norms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{norm}.{name}" for norm in norms for name, _ in model.get_submodule(norm).named_buffers())


@dataclass(frozen=True)
class Plan:
    """Which tensors a stage may change. The names are those of the network's state dict."""

    moves: str
    trained: tuple[str, ...]
    """Parameters the optimizer updates."""
    live_norms: tuple[str, ...]
    """Normalisation modules that use, and update, the statistics of each batch."""
    statistics: tuple[str, ...]
    """Buffers of the live norms: running mean, running variance and the count of batches."""
    num_trained: int
    num_parameters: int
    whole: tuple[str, ...] = ()
    """Modules that train as a whole, their dropout and stochastic depth included; an empty name: the network."""
    frozen: tuple[str, ...] = ()
    """Modules all of whose parameters are frozen by name: they stay in evaluation mode, statistics and dropout too."""
    frozen_norms: tuple[str, ...] = ()
    """Norms that use and keep their running statistics though they, or what they are in, train."""

    @property
    def is_trunk_frozen(self) -> bool:
        """Whether everything in front of the last norms stays as it is, so that their input does too."""
        return MOVES[self.moves].is_trunk_frozen

    @property
    def tensors(self) -> frozenset[str]:
        """Every tensor that may differ after the stage."""
        return frozenset(self.trained) | frozenset(self.statistics)

    def describe(self) -> str:
        """Return the line printed before the stage starts."""
        tensors = "1 tensor" if len(self.trained) == 1 else f"{len(self.trained)} tensors"
        of = f"{_count(self.num_trained)} of {_count(self.num_parameters)} parameters"
        text = f"moves {self.moves}: trains {tensors}, {of}"
        if self.frozen:
            text += f"; frozen: {', '.join(self.frozen) if len(self.frozen) <= 4 else f'{len(self.frozen)} modules'}"
        if not self.live_norms:
            return text + ("; norm statistics frozen" if self.frozen_norms else "; no running statistics are updated")
        named = ", ".join(self.live_norms) if len(self.live_norms) <= 4 else f"{len(self.live_norms)} norms"
        return f"{text}; running statistics updated: {named}"


def _count(number: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def matching(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """Return the parameter names that a pattern selects: a module's own name, or a pattern such as `*.bias`.

    Raises:
        UserError: a pattern selects none.
    """
    known = list(names)
    found: set[str] = set()
    for pattern in patterns:
        matched = {n for n in known if n == pattern or n.startswith(f"{pattern}.") or fnmatchcase(n, pattern)}
        if not matched:
            tops = list(dict.fromkeys(name.partition(".")[0] for name in known))
            shown = ", ".join(tops[:12]) + (", ..." if len(tops) > 12 else "")
            raise UserError(f"'{pattern}' matches no parameter of the network\n  their names begin with {shown}")
        found |= matched
    return frozenset(found)
