"""What a stage may move: the tensors of a network that each value of `moves` selects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.errors import UserError
from fixres.models.anatomy import has_parameters, head_names, is_inside, last_norms, last_stage
from fixres.models.build import architecture


def make_plan(model: nn.Module, moves: str, size: int, freeze: Sequence[str] = ()) -> Plan:
    """Return which tensors a stage at `size` may move.

    Args:
        model: the network.
        moves: `all`; `head`: the classifier's parameters; `head+stats`: these, and the running statistics of the
            last norms (the published FixRes code: their affine weights stay); `head+norm`: these, the statistics and
            the affine weights of the last norms (the words of the paper); `last-stage`: head, last norms and the
            last stage whole (PNASNet in the paper); `stats`: the statistics alone, which needs no labels; `auto`:
            head+stats where the last norms are BatchNorm, head otherwise.
        size: side in pixels of the stage.
        freeze: module names and name patterns of parameters that stay as they are all the same; with `all` only.

    Raises:
        UserError: the network has no norm, statistics or stage of the kind, and the message names what suits it; a
            pattern that matches nothing, or patterns that leave nothing to train.
    """
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    if moves == "all":
        kept = matching(parameters, freeze)
        trained = tuple(n for n in parameters if n not in kept)
        if not trained:
            raise UserError(f"freeze {', '.join(freeze)} leaves nothing of '{architecture(model)}' to train")
        frozen = _frozen_modules(model, kept)
        norms = tuple(name for name in _with_statistics(model, "") if not is_inside(name, frozen))
        num_trained = sum(parameters[n].numel() for n in trained)
        return Plan("all", trained, norms, _statistics(model, norms), num_trained, total, frozen=frozen)
    assert not freeze, "only moves all has anything to freeze"
    found = last_norms(model, size) if moves != "head" else ()
    norms = tuple(name for name in found if _keeps_statistics(model.get_submodule(name)))
    if moves in ("head+stats", "stats") and (not found or norms != found):
        raise _without_statistics(model, moves, found, norms)
    if moves == "head+norm" and not any(has_parameters(model.get_submodule(name)) for name in found):
        reason = "its last norm has no weights" if found else "it has no norm"
        raise UserError(
            f"moves head+norm does not suit '{architecture(model)}': {reason}\n  use moves: head, last-stage or all"
        )
    if moves == "auto":
        norms = norms if norms == found else ()
        moves = "head+stats" if norms else "head"
    heads = head_names(model) if moves != "stats" else ()
    whole = last_stage(model, size, heads) if moves == "last-stage" else ()
    wanted = (*heads, *whole, *(found if moves in ("head+norm", "last-stage") else ()))
    trained = tuple(n for n in parameters if any(n == module or n.startswith(f"{module}.") for module in wanted))
    live = dict.fromkeys(name for module in whole for name in _with_statistics(model, module))
    norms = tuple(live | dict.fromkeys(norms))
    num_trained = sum(parameters[n].numel() for n in trained)
    return Plan(moves, trained, norms, _statistics(model, norms), num_trained, total, whole)


def _without_statistics(model: nn.Module, moves: str, found: tuple[str, ...], tracked: tuple[str, ...]) -> UserError:
    what = ", ".join(f"{n} ({type(model.get_submodule(n)).__name__})" for n in found if n not in tracked)
    reason = f"{what} keeps no running statistics" if found else "it has no norm"
    others = "head, head+norm or all" if found else "head, or moves: all"
    return UserError(f"moves {moves} does not suit '{architecture(model)}': {reason}\n  use moves: {others}")


def _with_statistics(model: nn.Module, inside: str) -> tuple[str, ...]:
    """Return the norms with running statistics in a module, or in all of the network."""
    modules = model.get_submodule(inside).named_modules(prefix=inside)
    return tuple(name for name, module in modules if _keeps_statistics(module))


def _frozen_modules(model: nn.Module, kept: frozenset[str]) -> tuple[str, ...]:
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
    """Modules that train as a whole, their dropout and stochastic depth included."""
    frozen: tuple[str, ...] = ()
    """Modules all of whose parameters are frozen by name: they stay in evaluation mode, statistics and dropout too."""

    @property
    def is_trunk_frozen(self) -> bool:
        """Whether everything in front of the last norms stays as it is, so that their input does too."""
        return self.moves not in ("all", "last-stage")

    @property
    def tensors(self) -> frozenset[str]:
        """Every tensor that may differ after the stage."""
        return frozenset(self.trained) | frozenset(self.statistics)

    def describe(self) -> str:
        """Return the line printed before the stage starts."""
        tensors = "1 tensor" if len(self.trained) == 1 else f"{len(self.trained)} tensors"
        text = f"moves {self.moves}: trains {tensors}, {_count(self.num_trained)} of {_count(self.num_parameters)}"
        if self.frozen:
            text += f"; frozen: {', '.join(self.frozen) if len(self.frozen) <= 4 else f'{len(self.frozen)} modules'}"
        if not self.live_norms:
            return text + "; no live statistics"
        if len(self.live_norms) > 4:
            return text + f"; live statistics: {len(self.live_norms)} norms"
        return text + f"; live statistics: {', '.join(self.live_norms)}"


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
