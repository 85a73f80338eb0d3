"""The losses a recipe may name: all about them but the code, which is joined to them by name.

It is in `training.losses`, where `register_loss` adds to both halves.
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
    "focal": LossEntry(
        "cross-entropy in which every class counts (1 - p)^gamma times (Lin et al. 2017)", ("loss_gamma",)
    ),
}


@dataclass(frozen=True)
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
