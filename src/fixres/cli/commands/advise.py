"""The command `advise`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fixres.cli.commands.common import open_product
from fixres.cli.parse import Positional, parse_flags


@dataclass(frozen=True)
class AdviseFlags:
    """Flags of `fixres advise`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes to measure; left out: from the train size to twice it in steps of 32, or of the network's patches, and the
    size at which objects look as large as in training."""
    crop_ratios: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Crop ratios to measure; the product's own and 1 when left out."""
    budget_gmacs: Annotated[float, Field(gt=0)] | None = None
    """Most work for a picture."""
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    """Most time for a picture, in milliseconds on this machine."""
    fixed: bool = True
    """Also fix the head at every size, on cached features of the training split."""
    model: str | None = None
    """Architecture of a bare weights file."""
    plot: Path | None = None
    """Draw accuracy against size and against GMACs into this .svg or .png."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""
    quiet: bool = False
    """Print results only."""


def advise(words: Sequence[str]) -> int:
    """`fixres advise CKPT [--data URI] [--budget-gmacs G | --budget-ms MS]`."""
    flags = parse_flags(words, AdviseFlags, "fixres advise", "Which size to test and to fix at, and why.")
    from fixres.checkpoints.resolve import load
    from fixres.cli.console import Console
    from fixres.experiments.advise import Question, advise
    from fixres.io.files import write_text
    from fixres.reporting.figures import check_plot, draw_advice

    if flags.plot is not None:
        check_plot(flags.plot)
    console = Console(flags.quiet)
    product = open_product(console, flags.checkpoint, "fixed", flags.model)
    if product.details.get("before_fix"):
        # A head fixed for one size says nothing about the others.
        product = load(flags.checkpoint, "before_fix")
    question = Question(
        data=flags.data,
        sizes=flags.sizes,
        crop_ratios=flags.crop_ratios,
        budget_gmacs=flags.budget_gmacs,
        budget_ms=flags.budget_ms,
        fixed=flags.fixed,
    )

    def progress(what: str, done: int, total: int) -> None:
        console({"event": "progress", "what": what, "done": done, "total": total})

    try:
        answer = advise(product, question, progress)
    finally:
        console.close()
    theory = answer["theory"]
    source = "as in its recipe" if theory["crop_is_known"] else "taken to be the default"
    console.say(
        f"theory: trained at {theory['train_size']} px with crop {theory['crop']} ({source}), objects look "
        f"{theory['apparent_ratio']:.3f} times as large in testing ({theory['simulated_ratio']:.3f} with the shapes of "
        f"these pictures); {_same(theory)}"
    )
    columns = ["", "network", "size", "crop", "top-1 %", "loss", "GMACs", "ms"]
    rows = [
        [
            "*" if row["on_front"] else "",
            row["network"],
            str(row["size"]),
            row["view"].removeprefix("crop "),
            f"{row['top1']:.2f}",
            f"{row['loss']:.4f}",
            f"{row['gmacs']:.3f}",
            f"{row['ms']:.2f}",
        ]
        for row in answer["rows"]
    ]
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}: {answer['halves']}"
    console.table(f"{title}; *: nothing is cheaper and as good", columns, rows)
    if answer["not_fixed"]:
        console.warn(
            f"nothing was fixed: {answer['not_fixed']}\n"
            "  the advice is on the network as it is, and says nothing about a fix"
        )
    advice = answer["advice"]
    console.say(f"advice: {advice['network']} at {advice['size']} px, {advice['view']}: {advice['why']}")
    if "confirmed" in answer:
        confirmed = answer["confirmed"]
        console.say(f"confirmed on the other half (n = {confirmed['num_images']:,}): {confirmed['top1']:.2f} %")
    if flags.plot is not None:
        draw_advice(answer, flags.plot)
        console.say(f"plot: {flags.plot}")
    if flags.json is not None:
        text = json.dumps(answer, indent=2) + "\n"
        if str(flags.json) == "-":
            sys.stdout.write(text)
        else:
            write_text(flags.json, text)
    return 0


def _same(theory: Mapping[str, Any]) -> str:
    """Return at which size objects look as large as in training, and what the network takes for it."""
    from fixres.resolution import HARDLY_LARGER

    exact, matching, train = theory["exact_matching_size"], theory["matching_size"], theory["train_size"]
    if round(exact) == matching:
        return f"as large at {matching} px"
    if matching == train and exact > (1 + HARDLY_LARGER) * train:
        return f"as large at about {exact:.0f} px, but the network takes no size near it"
    return f"as large at about {exact:.0f} px, for which {matching} px is used"
