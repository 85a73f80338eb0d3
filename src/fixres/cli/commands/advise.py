"""The command `advise`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fixres.checkpoints.feeding_request import FedAs, Feeding
from fixres.cli.commands.common import open_product, write_answer
from fixres.cli.parse import Positional, parse_flags
from fixres.experiments.questions import Question


@dataclass(frozen=True, kw_only=True)
class AdviseFlags(FedAs, Question):
    """Flags of `fixres advise`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
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
    from fixres.checkpoints.resolve import unfixed
    from fixres.cli.console import Console
    from fixres.evaluation.results import advice_cells
    from fixres.experiments.advise import advise
    from fixres.reporting.figures import check_plot, draw_advice

    if flags.plot is not None:
        check_plot(flags.plot)
    console = Console(flags.quiet)
    product = unfixed(open_product(console, flags.checkpoint, "fixed", flags.model, Feeding(fed_as=flags.fed_as)))
    with closing(console):
        answer = advise(product, flags, console.progress)
    theory = answer["theory"]
    source = "as in its recipe" if theory["crop_is_known"] else "taken to be the default"
    console.say(
        f"theory: trained at {theory['train_size']} px with crop {theory['crop']} ({source}), objects look "
        f"{theory['apparent_ratio']:.3f} times as large in testing ({theory['simulated_ratio']:.3f} with the shapes of "
        f"these pictures); {_same(theory)}"
    )
    columns = ["", "network", "size", "crop", "top-1 %", "loss", "GMACs", "ms"]
    rows = []
    for row in answer["rows"]:
        *cells, work, time = advice_cells(row)
        rows.append([*cells, f"{row['loss']:.4f}", work, time])
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
    write_answer(flags.json, answer)
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
