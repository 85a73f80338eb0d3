"""The command `fix`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fixres.cli.commands.common import CheckpointFlags, open_checkpoint
from fixres.cli.commands.train import followed
from fixres.cli.console import Console
from fixres.cli.parse import parse_flags
from fixres.config.stage import Moves, Positive
from fixres.errors import UserError, started_rank
from fixres.training.start_checks import StartChecks

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FixFlags(CheckpointFlags):
    """Flags of `fixres fix`."""

    size: int | Literal["auto"] | None = None
    """Size to fix at, in pixels; auto: chosen on the selecting split, with --sizes among those."""
    sizes: str = ""
    """Sizes A,B,C that get a head and last-norm statistics of their own, kept in one product; auto: those worth it."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    moves: Moves | None = None
    """Which tensors may change. Left out, this and the next seven are as in the run's own fix, else the defaults."""
    solver: Literal["auto", "cached", "sgd"] | None = None
    """cached: the trunk runs once, the head is solved on its features; sgd (epochs, lr, augment): as published; auto:
    cached where the network's head suits it."""
    views: Annotated[int, Field(ge=1, le=10)] | None = None
    """cached: views of a picture, the test-time crop first."""
    mix: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = None
    """Share of what the fix finds, the rest as before it; auto: the least loss on the selecting split and --also."""
    also: tuple[str, ...] = ()
    """With --mix auto: other collections of the same classes to look at, too."""
    epochs: Positive | None = None
    """Passes over the training split."""
    lr: float | None = None
    """Peak learning rate."""
    batch_size: Positive | None = None
    """Global batch."""
    augment: Literal["none", "flip", "v1", "v2"] | None = None
    """none and v1: the test-time preprocessing alone; v2: with flip, mild jitter and shifted crop."""
    weights: str = "fixed"
    """raw or ema of a training checkpoint; a file for timm:NAME."""
    train_size: Positive | None = None
    """Size the network was trained at, where the checkpoint does not say; timm's for a bare weights file."""
    seed: int = 0
    """Seed."""
    out: Path | None = None
    """Run folder to write."""
    resume: bool = False
    """Go on with a fix that was interrupted, in the folder it was writing."""
    take_over: bool = False
    """Count a run on another machine that holds the run folder as dead, before 5 minutes without a sign of life."""
    check_data: bool = False
    """Keep a hash of every picture file when the fix begins; with --resume, compare them. Else sizes and times are."""
    accept_data: bool = False
    """With --resume: go on with picture files that changed since the fix began."""
    quiet: bool = False
    """Print results only."""


def fix(words: Sequence[str]) -> int:
    """`fixres fix CKPT --size N|auto [--sizes A,B,C] [--data URI] [--moves M] [--epochs E] [--out DIR] [--resume]`."""
    flags = parse_flags(words, FixFlags, "fixres fix", "Adapt the end of a trained network to a larger size.")
    from fixres.checkpoints.resolve import unfixed
    from fixres.evaluation.measure import own_split
    from fixres.training.initial_weights import fix_recipe
    from fixres.training.run import run_recipe

    if flags.size is None and not flags.sizes:
        raise UserError("fixres fix needs a size\n  --size N or auto, or --sizes A,B,C for a head each")
    console = Console(flags.quiet or started_rank() != 0)
    product = open_checkpoint(console, flags)
    # A fix starts from the network as it was trained, not from a head fixed for another size.
    product = unfixed(product)
    if flags.train_size is not None:
        product = replace(product, train_size=flags.train_size)
    names = ("moves", "solver", "views", "mix", "epochs", "lr", "batch_size", "augment")
    settings = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    if flags.also:
        if flags.mix != "auto":
            raise UserError("--also names collections that decide on a mix\n  add --mix auto")
        settings["mix_also"] = flags.also
    settings["size"] = size = flags.size or "auto"
    folder = flags.out or _beside(flags.checkpoint, f"fix-{size if flags.size else 'sizes'}")
    with followed(console, folder):
        try:
            recipe = fix_recipe(product, flags.data, settings, flags.seed)
            if flags.sizes:
                recipe = _with_heads(recipe, product, flags)
            _require_used(flags, recipe.fix.solver)
            own = own_split(product, flags.data)
            checks = StartChecks(take_over=flags.take_over, check_data=flags.check_data, accept_data=flags.accept_data)
            run_recipe(recipe, folder, resume=flags.resume, listeners=[console], split_from=own, checks=checks)
        except UserError as error:
            raise UserError(_as_flags(str(error))) from error
    return 0


def _with_heads(recipe: Recipe, product: Product, flags: FixFlags) -> Recipe:
    """Return the recipe with a head for every size asked for; where no size is, the one to ship is one of them.

    Raises:
        UserError: no heads can be solved for several sizes with these settings.
    """
    from fixres.models.sizes import offer_sizes

    if flags.sizes == "auto":
        sizes = offer_sizes(product.model, product.preprocess.at(product.train_size), recipe.train).sizes
    else:
        words = [word.strip() for word in flags.sizes.split(",")]
        if not all(word.isdecimal() and int(word) for word in words):
            raise UserError(f"--sizes {flags.sizes}: expected sizes in pixels with commas between them, or auto")
        sizes = tuple(map(int, words))
    if recipe.fix.solver == "sgd":
        raise UserError("--sizes solves a head for each size on cached features, and this fix is trained by sgd")
    evaluation = recipe.evaluation
    if recipe.fix.size == "auto":
        evaluation = evaluation.model_copy(update={"sizes": sizes})
    fix = recipe.fix.model_copy(update={"head_sizes": sizes})
    return recipe.model_copy(update={"fix": fix, "evaluation": evaluation})


def _require_used(flags: FixFlags, solver: str) -> None:
    """Refuse a flag that the solver would not look at.

    Raises:
        UserError: it would do nothing.
    """
    if solver == "sgd" and flags.views is not None:
        raise UserError("--views is for the cached solver, and this fix is trained by sgd\n  leave --views out")
    given = [name for name in ("epochs", "lr", "batch_size", "augment") if getattr(flags, name) is not None]
    if solver == "cached" and given:
        raise UserError(
            f"--{given[0].replace('_', '-')} is for training by sgd, and this fix is solved on cached features\n"
            "  leave it out, or add --solver sgd"
        )


def _as_flags(text: str) -> str:
    """Return a message about a recipe's fix in the words of this command's flags."""
    text = text.replace("--data.uri", "--data")
    text = text.replace("fix.mix_also", "--also").replace("fix.head_sizes", "--sizes")
    text = re.sub(r"(?:--)?\bfix\.([a-z_]+)", lambda key: f"--{key[1].replace('_', '-')}", text)
    return re.sub(r"\b(moves|solver): (?=[a-z])", r"--\1 ", text)


def _beside(source: str, suffix: str) -> Path:
    from fixres.checkpoints.source import weights_and_kind

    checkpoint = Path(weights_and_kind(source)[0])
    if not checkpoint.exists():
        return Path("runs") / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', source)}-{suffix}"
    base = checkpoint.parent if checkpoint.name == "model" or checkpoint.is_file() else checkpoint
    # A file in the folder we are in has no folder with a name to stand beside.
    return base.with_name(f"{base.resolve().name}-{suffix}") if base.name else Path(f"{checkpoint.stem}-{suffix}")
