"""A trained network with everything needed to use it, and the sheet that describes it on disk."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fixres.errors import UserError
from fixres.models.build import load_strict
from fixres.models.sizes import at_size, bound_size
from fixres.resolution import Preprocess

MEASURED = ("results", "evaluation", "promises", "cascade")
"""What a product's details say of it as it is fed: nothing of it holds for another feeding, or other weights."""


@dataclass(frozen=True)
class Product:
    """A trained network with everything needed to use it."""

    model: nn.Module
    architecture: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    """At the test size."""
    train_size: int
    weights: str
    """ema | raw, or before_fix."""
    model_args: Mapping[str, Any]
    """What timm.create_model was given beside the name, the size of a position grid apart."""
    has_names: bool
    """Whether the class names are real, not the numbers of the outputs."""
    details: Mapping[str, Any]
    """The "fixres" key of config.json; empty for foreign weights."""
    source: str
    """What `load` was given, made absolute: loading it again gives the same."""
    home: Path | None = None
    """The folder the model folder lies in, a run folder when there is a run; None for anything that is no folder."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What to call a class when speaking to people, where its name is a code like n07920052."""
    notes: tuple[str, ...] = ()
    """What was found in a foreign file and what was left out, for people."""
    are_names_assumed: bool = False
    """Whether the class names are those of the only collection its program knows; the file states none."""
    has_head: bool = True
    """Whether there is a classifier: weights without one have zeros in its place, and say nothing about classes."""
    heads: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    """Of sizes that have a head of their own, the test size among them: the tensors in which they differ. The train
    size has that from before the fix where none was solved for it."""

    def at(self, size: int) -> Product:
        """Return the product ready for inputs `[B, 3, size, size]`."""
        if size == self.preprocess.size:
            return self
        return replace(self, model=self.network_at(size), preprocess=self.preprocess.at(size))

    def network_at(self, size: int) -> nn.Module:
        """Return the network for inputs `[B, 3, size, size]`, with the size's own head where sizes have one.

        Raises:
            UserError: other sizes have a head of their own, and this one has none; or the network cannot take it.
        """
        if self.heads and size not in self.heads:
            known = ", ".join(map(str, sorted(self.heads)))
            raise UserError(
                f"{self.source} has no head for {size} px: it has one for each of {known} px\n  ask for one of them, "
                "take --weights before_fix for the network from before the fix, or fix again with --sizes"
            )
        model = at_size(self.model, size)
        if size == self.preprocess.size or not self.heads:
            return model
        own = copy.deepcopy(model)
        load_strict(own, {**own.state_dict(), **self.heads[size]}, f"{self.source} at {size} px")
        return own

    def is_before_fix(self, size: int) -> bool:
        """Whether a size has the head from before the fix, where others have one that was solved for them."""
        solved = {self.preprocess.size, *map(int, self.details.get("sizes", {}))}
        return size in self.heads and size == self.train_size and size not in solved

    def at_test_size(self) -> Product:
        """Return the product with its position grid, if it has one, made for the test size."""
        if bound_size(self.model) in (None, self.preprocess.size):
            return self
        return replace(self, model=at_size(self.model, self.preprocess.size))

    def spoken(self, index: int) -> str:
        """Return what people call class `index`."""
        return self.descriptions.get(self.classes[index], self.classes[index])


@dataclass(frozen=True)
class SizeHead:
    """What a product keeps of one further size."""

    tensors: Mapping[str, Tensor]
    """Those in which the network differs from that of the test size."""
    result: Mapping[str, Any]
    """What it reached on the reported split."""


@dataclass(frozen=True)
class Sheet:
    """What config.json states beside the architecture."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    train_size: int
    moves: str
    weights: str
    results: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    """Split, file list hash, batch size, threads, precision and layout behind `results`."""
    data: Mapping[str, Any]
    """Collection, its licence, and where the starting weights come from with theirs."""
    model_args: Mapping[str, Any]
    seed: int = 0
    before_size: int | None = None
    """Size of the position grid before the fix, where there is one."""
    has_names: bool = True
    """Whether the class names are real; a folder without states none."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What people call the classes."""
    average: Mapping[str, Any] = field(default_factory=dict)
    """Of an average of several networks: how it was made, and of which files."""
    promises: Mapping[str, Any] = field(default_factory=dict)
    """What `evaluation.promises.certify` found for its sets and for abstaining."""
    cascade: Mapping[str, Any] = field(default_factory=dict)
    """Two sizes in turn, as `eval --cascade --save` keeps them."""
    heads: Mapping[int, SizeHead] = field(default_factory=dict)
    """Further sizes with a head of their own."""
    has_new_head: bool = False
    """Whether all that was ever trained is the head, from random weights on frozen features."""
