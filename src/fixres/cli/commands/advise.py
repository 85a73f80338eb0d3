"""The command `advise`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.checkpoints.feeding_request import FedAs, Feeding
from fixres.checkpoints.source import names_checkpoint, require_there
from fixres.cli.commands.common import interrupted_where_nothing_is_kept, open_product, write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.config.choices import OnBadImage
from fixres.config.stage import Above0
from fixres.errors import UserError, counted
from fixres.experiments.questions import Question

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.training.probe_cells import Row


@dataclass(frozen=True, kw_only=True)
class AdviseFlags(FedAs, Question):
    """Flags of `fixres advise`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT|PHOTOS")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name. Anything
    else is pictures, a folder or a data URI: small networks are tried on them before any training."""
    model: str | None = None
    """Architecture of a bare weights file."""
    models: tuple[str, ...] = ()
    """PHOTOS: networks to try, timm names or package:NAME; left out: small ones that are on this disk."""
    minutes: Above0 | None = None
    """PHOTOS: time for the measurement, 1 when left out."""
    on_bad_image: OnBadImage | None = None
    """PHOTOS: error (when left out) or skip, which counts and lists pictures that cannot be read."""
    plot: Path | None = None
    """CHECKPOINT: draw accuracy against size and against GMACs into this .svg or .png."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""
    quiet: bool = False
    """Print results only."""


_OF_CHECKPOINTS = ("data", "fed_as", "model", "plot", "also", "corrupt")
_OF_PICTURES = ("models", "minutes", "on_bad_image")


def advise(words: Sequence[str]) -> int:
    """`fixres advise CKPT|PHOTOS [--serve-size N | --budget-gmacs G | --budget-ms MS]`."""
    flags = parse_flags(words, AdviseFlags, "fixres advise", "Which size to test, to fix and to train at, and why.")
    is_checkpoint = names_checkpoint(flags.checkpoint, flags.model)
    if is_checkpoint:
        require_there(flags.checkpoint)
    _refuse_the_others(flags, is_checkpoint)
    return _on_checkpoint(flags) if is_checkpoint else _on_pictures(flags)


def _refuse_the_others(flags: AdviseFlags, is_checkpoint: bool) -> None:
    """Refuse flags that say nothing about what was given.

    Raises:
        UserError: naming them.
    """
    given = [name for name in (_OF_PICTURES if is_checkpoint else _OF_CHECKPOINTS) if getattr(flags, name)]
    given += ["fixed"] if not is_checkpoint and not flags.fixed else []
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        what, other = ("a checkpoint", "pictures") if is_checkpoint else ("pictures", "a checkpoint")
        raise UserError(f"{flags.checkpoint} is {what}, and {names} is for {other}\n  leave it out")


def _on_checkpoint(flags: AdviseFlags) -> int:
    from fixres.checkpoints.resolve import unfixed
    from fixres.cli.console import Console
    from fixres.data.test_time_augmentation import parse_corruptions
    from fixres.experiments.advise import advise
    from fixres.reporting.figures import check_plot, draw_advice

    if flags.plot is not None:
        check_plot(flags.plot)
    # A mistyped corruption is refused before a network is loaded.
    parse_corruptions(flags.corrupt)
    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, "fixed", flags.model, Feeding(fed_as=flags.fed_as))
    with closing(console):
        answer = advise(unfixed(product), flags, console.progress)
    _say_measured(console, answer)
    advice, auto = answer["advice"], answer["auto"]
    console.say(f"advice: {advice['network']} at {advice['size']} px, {advice['view']}: {advice['why']}")
    if "confirmed" in answer:
        confirmed = answer["confirmed"]
        console.say(f"confirmed on the other half (n = {confirmed['num_images']:,}): {confirmed['top1']:.2f} %")
    answer["commands"] = _commands(flags, answer, product)
    if advice["network"] == "fixed" and auto["size"] != advice["size"]:
        console.say(f"--size auto, which fixes nothing before it chooses, would take {auto['size']} px: {auto['why']}")
    _say_train_size(console, answer)
    console.say("\n".join(f"  {command}" for command in answer["commands"]))
    if flags.plot is not None:
        draw_advice(answer, flags.plot)
        console.say(f"plot: {flags.plot}")
    write_answer(flags.json, answer)
    return 0


def _say_measured(console: Console, answer: Mapping[str, Any]) -> None:
    """Print theory and table."""
    from fixres.evaluation.results import advice_cells

    theory = answer["theory"]
    source = "as in its recipe" if theory["crop_is_known"] else "taken to be the default"
    console.say(
        f"theory: trained at {theory['train_size']} px with crop {theory['crop']} ({source}), objects look "
        f"{theory['apparent_ratio']:.3f} times as large in testing ({theory['simulated_ratio']:.3f} with the shapes of "
        f"these pictures); {_same(theory)}"
    )
    also = [f"on {column['name']}" for column in answer.get("also", ())]
    columns = ["", "network", "size", "crop", "top-1 %", "loss", "GMACs", "ms", *also]
    rows = []
    for row in answer["rows"]:
        *cells, work, time = advice_cells(row)
        rows.append([*cells, f"{row['loss']:.4f}", work, time, *(f"{top1:.2f}" for top1 in row.get("also", ()))])
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}: {answer['halves']}"
    console.table(f"{title}; *: nothing is cheaper and as good", columns, rows)
    for remark in answer["speed_remarks"]:
        console.say(remark)
    if answer["not_fixed"]:
        console.warn(
            f"nothing was fixed: {answer['not_fixed']}\n"
            "  the advice is on the network as it is, and says nothing about a fix"
        )


def _say_train_size(console: Console, answer: Mapping[str, Any]) -> None:
    if "train_size" in answer:
        found = answer["train_size"]
        console.say(f"to use it at {found['serve_size']} px, train at {found['size']} px: {found['why']}")


def _commands(flags: AdviseFlags, answer: Mapping[str, Any], product: Product) -> list[str]:
    """Return what to type to act on the advice."""
    advice, source = answer["advice"], shlex.quote(flags.checkpoint)
    for name in ("model", "fed_as", "data"):
        if value := getattr(flags, name):
            source += f" --{name.replace('_', '-')} {shlex.quote(value)}"
    is_done = bool(product.details.get("before_fix")) and product.preprocess.size == advice["size"]
    if advice["network"] == "fixed" and not is_done:
        found = [f"fixres fix {source} --size {advice['size']}"]
    else:
        before = " --weights before_fix" if advice["network"] != "fixed" and product.details.get("before_fix") else ""
        is_own = advice["crop_ratio"] == product.preprocess.crop_ratio
        crop = "" if is_own else f" --crop-ratio {advice['crop_ratio']:g}"
        found = [f"fixres eval {source} --sizes {advice['size']}{crop}{before}"]
    train, recipe = answer.get("train_size"), product.home and product.home / "recipe.yaml"
    if train is not None and train["size"] != train["trained_at"] and recipe and recipe.is_file():
        name = shlex.quote(str(recipe))
        found.append(f"fixres train {name} --train.size {train['size']} --fix.size {train['serve_size']}")
    return found


def _on_pictures(flags: AdviseFlags) -> int:
    from fixres.cli.console import Console
    from fixres.experiments.advise_pictures import advise_pictures
    from fixres.experiments.questions import PictureQuestion

    question = PictureQuestion(
        models=flags.models,
        minutes=flags.minutes or 1.0,
        sizes=flags.sizes,
        crop_ratios=flags.crop_ratios,
        budget_gmacs=flags.budget_gmacs,
        budget_ms=flags.budget_ms,
        serve_size=flags.serve_size,
        on_bad_image=flags.on_bad_image or "error",
    )
    console = Console(flags.quiet)
    with closing(console), interrupted_where_nothing_is_kept():
        advice = advise_pictures(
            flags.checkpoint, question, lambda row: console.say(f"  {_row_line(row)}"), console.progress
        )
    answer = advice.answer
    chosen = answer["advice"]
    columns = ["network", "size", "crop", "n", "top-1 %", "loss", "GMACs", "ms", ""]
    title = f"new heads on frozen features, {answer['how']} of {answer['data']}"
    console.table(title, columns, [_picture_cells(row) for row in answer["rows"]])
    if answer["num_bad_images"]:
        console.warn(f"{counted(answer['num_bad_images'], 'picture')} left out because they cannot be read")
    console.say(
        f"advice: {chosen['network']} at {chosen['size']} px, crop {chosen['crop_ratio']:g}: {chosen['why']}\n"
        "  these are heads on frozen features, compared on the pictures they are measured on; nothing is trained yet"
    )
    _say_train_size(console, answer)
    photos, name = shlex.quote(flags.checkpoint), shlex.quote(chosen["network"])
    answer["commands"] = [f"fixres train {photos} --models {name} --minutes 3"]
    if "train_size" in answer:
        answer["commands"][0] += f" --train.size {answer['train_size']['size']} --fix.size {chosen['size']}"
    console.say("\n".join(f"  {command}" for command in answer["commands"]))
    write_answer(flags.json, answer)
    return 0


def _row_line(row: Row) -> str:
    """Return a finished row in one line, while others are still measured."""
    if row.loss is None or row.top1 is None:
        return f"{row.cell}: not run, {row.why}"
    why = f"; {row.why}" if row.why else ""
    return f"{row.cell}: {row.top1:.1f} %, loss {row.loss:.4f} on {row.n:,} pictures, {row.seconds:.1f} s{why}"


def _picture_cells(row: Mapping[str, Any]) -> list[str]:
    figures = ["-", "-", "-"]
    if row["loss"] is not None:
        figures = [f"{row['n']:,}", f"{row['top1']:.2f}", f"{row['loss']:.4f}"]
    speed = "-" if row["ms"] is None else f"{row['ms']:.2f}"
    note = f"not run: {row['why']}" if row["state"] == "not run" else ""
    return [row["network"], str(row["size"]), f"{row['crop_ratio']:g}", *figures, f"{row['gmacs']:.3f}", speed, note]


def _same(theory: Mapping[str, Any]) -> str:
    """Return at which size objects look as large as in training, and what the network takes for it."""
    from fixres.resolution import HARDLY_LARGER

    exact, matching, train = theory["exact_matching_size"], theory["matching_size"], theory["train_size"]
    if round(exact) == matching:
        return f"as large at {matching} px"
    if matching == train and exact > (1 + HARDLY_LARGER) * train:
        return f"as large at about {exact:.0f} px, but the network takes no size near it"
    return f"as large at about {exact:.0f} px, for which {matching} px is used"
