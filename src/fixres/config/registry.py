"""The losses and the values of `moves` that a recipe may name: all about them but the code, joined to them by name.

The code is in `training.losses` and `models.moves`, where `register_loss` and `register_moves` add to both halves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fixres.errors import UserError

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class LossEntry:
    """What is known about a loss without its code."""

    summary: str
    settings: tuple[str, ...] = ()
    """Stage settings that only losses read, and this one does."""


LOSSES = {
    "ce": LossEntry("cross-entropy"),
    "bce": LossEntry("the mean over classes of the binary cross-entropy (Wightman et al. 2021)", ("loss_threshold",)),
    "focal": LossEntry("cross-entropy whose classes count (1 - p)^gamma times (Lin et al. 2017)", ("loss_gamma",)),
}


@dataclass(frozen=True)
class MovesEntry:
    """What is known about a value of `moves` without its code."""

    summary: str
    """What moves."""
    is_trunk_frozen: bool
    """Whether everything in front of the last norms stays as it is, so that their input does too."""
    solvers: tuple[str, ...] = ("sgd",)
    """What can do it, of cached and sgd; without sgd no parameter is trained and no label used."""
    needs: str = ""
    """What the network must have."""
    is_arm: bool = True
    """Whether a grid compares it."""


_BOTH = ("cached", "sgd")
_NORMS = "running statistics in its last norms"
MOVES = {
    "auto": MovesEntry("head+stats where the last norms are BatchNorm, head otherwise", True, _BOTH, is_arm=False),
    "head": MovesEntry("the classifier's parameters", True, _BOTH),
    "head+stats": MovesEntry(
        "these and the running statistics of the last norms (as FixRes' code: affine weights stay)", True, _BOTH, _NORMS
    ),
    "head+norm": MovesEntry(
        "these, the statistics and the affine weights of the last norms (as FixRes' paper)", True, needs="a last norm"
    ),
    "last-stage": MovesEntry(
        "these and the last stage whole (PNASNet in the paper)", False, needs="stages to tell apart", is_arm=False
    ),
    "stats": MovesEntry("the running statistics of the last norms, without labels", True, ("cached",), _NORMS),
    "all": MovesEntry("everything but what freeze names", False),
}


def solved_by(solver: str) -> tuple[str, ...]:
    """Return the values of `moves` that `cached` or `sgd` can do."""
    return tuple(name for name, entry in MOVES.items() if solver in entry.solvers)


@dataclass(frozen=True, eq=False)
class NameIn:
    """Metadata of a text that must be a name in a table, which may grow after the field is declared."""

    table: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic look the value up whenever a recipe is checked."""
        return core_schema.no_info_after_validator_function(self._look_up, handler(source))

    def _look_up(self, name: str) -> str:
        if name not in self.table:
            raise ValueError("unknown name")
        return name


def add(table: dict[str, Entry], name: str, entry: Entry) -> None:
    """Add what a plugin registers to a table.

    Raises:
        UserError: the name is taken, or no name that a recipe, a flag and a file can have.
    """
    if name in table:
        raise UserError(f"'{name}' is registered already\n  there are {', '.join(table)}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9+_-]*", name):
        raise UserError(f"'{name}' is no name to register\n  use small letters, digits, +, - and _")
    table[name] = entry
