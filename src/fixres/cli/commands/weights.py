"""Commands that bring weights in or together: `import`, `average` and `fetch`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from fixres.cli.commands.common import download_bar
from fixres.cli.parse import parse_flags
from fixres.errors import UserError

Unit = Annotated[float, Field(ge=0, le=1)]
PositiveUnit = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ImportFlags:
    """Flags of `fixres import`."""

    source: tyro.conf.Positional[str]
    """Weights file, model folder, or timm: hf-hub: fixres: url: package: and a name."""
    out: Path
    """New model folder."""
    model: str | None = None
    """Architecture of a bare weights file, by timm name or alias: `fixres models`."""
    weights: str = "fixed"
    """raw or ema of a training checkpoint (left out: raw, or ema when there is nothing else); FILE for timm:NAME."""
    new_head: Annotated[int, Field(ge=1)] | None = None
    """Replace the classifier by a random one with this many classes."""
    classes: str | None = None
    """Names of the outputs: a text file with one per line, a JSON file by index, or the word imagenet."""
    optimizer: bool = False
    """Keep the optimizer's state by parameter name, for `fixres train --optim.state DIR`."""
    trust: bool = False
    """Run the code inside a pickle. Only for a file whose author you trust: it can do anything you can."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels the weights were trained at; left out, the model's."""
    grid_size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels the position grid of a transformer's file is for, where that is not the model's own."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels to test at. This and the next five, left out: as the model's published weights are fed."""
    crop_ratio: PositiveUnit | None = None
    """size / resize_size."""
    resize: Literal["shorter", "height", "squash", "pad"] | None = None
    """height: as the released FixRes weights were measured."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Interpolation of the resize."""
    mean: tuple[Unit, Unit, Unit] | None = None
    """Per-channel mean of the input."""
    std: tuple[PositiveUnit, PositiveUnit, PositiveUnit] | None = None
    """Per-channel standard deviation of the input."""
    license: str = ""
    """Licence of the weights, written into the folder's README."""
    seed: int = 0
    """Seed of a new head."""
    quiet: bool = False
    """Print results only."""


def import_(words: Sequence[str]) -> int:
    """`fixres import FILE --model NAME --out DIR [--weights raw|ema] [--new-head N] [--trust] ...`."""
    flags = parse_flags(words, ImportFlags, "fixres import", "Any checkpoint to a model folder, strictly and safely.")
    from fixres.checkpoints.convert import ImportRequest, import_weights
    from fixres.cli.console import Console

    console = Console(flags.quiet)
    names = ("size", "crop_ratio", "resize", "interpolation", "mean", "std")
    request = ImportRequest(
        source=flags.source,
        out=flags.out,
        model=flags.model,
        weights=flags.weights,
        new_head=flags.new_head,
        trust=flags.trust,
        classes=flags.classes,
        optimizer=flags.optimizer,
        seed=flags.seed,
        license=flags.license,
        feeding={name: getattr(flags, name) for name in names},
        train_size=flags.train_size,
        grid_size=flags.grid_size,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            product, notes = import_weights(request)
        finally:
            for warning in caught:
                if issubclass(warning.category, UserWarning):
                    console.warn(str(warning.message))
    for note in notes:
        console.say(note)
    console.say(f"network: {product.architecture}, {len(product.classes):,} classes, {product.weights} weights")
    console.preprocessing(product.preprocess, str(flags.out))
    p = product.preprocess
    console.say(f"mean {', '.join(map(str, p.mean))}; std {', '.join(map(str, p.std))}")
    sys.stdout.write(f"{flags.out}\n")
    return 0


@dataclass(frozen=True)
class AverageFlags:
    """Flags of `fixres average`."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CKPT")]
    """Two or more run folders, model folders, or weights files with --model, of one architecture."""
    out: Path
    """New model folder."""
    greedy: bool = False
    """Best network first; add another only where the soup loses nothing on the selecting split."""
    recalibrate: bool = False
    """Recompute BatchNorm statistics over the training split, in place of averaging them."""
    data: str | None = None
    """Data URI to select and report on; the first checkpoint's own when left out."""
    model: str | None = None
    """Architecture of bare weights files."""
    weights: str = "fixed"
    """raw or ema of training checkpoints; before_fix of folders."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Pictures per batch."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes; left out: one per core, at most 8."""
    quiet: bool = False
    """Print results only."""


def average(words: Sequence[str]) -> int:
    """`fixres average CKPT... --out DIR [--greedy] [--recalibrate] [--data URI]`."""
    flags = parse_flags(words, AverageFlags, "fixres average", "One network with the mean of several's weights.")
    from fixres.cli.console import Console
    from fixres.training.model_soup import AverageRequest, average

    console = Console(flags.quiet)
    names = ("sources", "out", "greedy", "recalibrate", "data", "model", "weights", "batch_size", "workers")
    found = average(AverageRequest(**{name: getattr(flags, name) for name in names}), console.say)
    console.preprocessing(found.product.preprocess, flags.sources[0])
    console.say(f"average of {len(found.used)} of {len(flags.sources)}: {', '.join(found.used)}")
    if found.result is None or found.soup_top1 is None:
        console.say("not measured: there are no pictures to measure on; --data URI")
    else:
        low, high = found.result["top1_ci95"]
        console.say(f"selected on {found.select}: {found.soup_top1:.2f} %")
        console.say(
            f"result on {found.report}: {found.result['top1']:.2f} % ({low:.1f} to {high:.1f}) at "
            f"{found.result['size']} px, n = {found.num_images:,}"
        )
    sys.stdout.write(f"{flags.out}\n")
    return 0


@dataclass(frozen=True)
class FetchFlags:
    """Flags of `fixres fetch`."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Released names (`fixres fetch` alone lists them), or https:// addresses, with #sha256=HEX to check them."""
    out: Path | None = None
    """Folder; left out: where PyTorch keeps downloaded checkpoints."""
    quiet: bool = False
    """Print the paths only."""


def fetch(words: Sequence[str]) -> int:
    """`fixres fetch NAME... [--out DIR]`: downloads that go on after an interruption and are checked."""
    flags = parse_flags(words, FetchFlags, "fixres fetch", "Download released weights, with resume and checksum.")
    from fixres.cli.console import Console
    from fixres.io.download import cache
    from fixres.io.download.address import parse_url
    from fixres.models.released import RELEASED, fetch_released, find_released

    if not flags.names:
        sys.stdout.write(_list_released())
        return 0
    wanted = [name if "://" in name else find_released(name.removeprefix("fixres:")).name for name in flags.names]
    console = Console(flags.quiet)
    for name in wanted:
        progress = download_bar(console, name.rpartition("/")[2])
        try:
            if name in RELEASED:
                console.say(f"{name}: licence {RELEASED[name].license}")
                path = fetch_released(name, folder=flags.out, progress=progress)[0]
            else:
                url, sha256 = parse_url(name)
                path = cache.fetch(url, sha256=sha256, folder=flags.out, progress=progress)
        except OSError as error:
            raise UserError(f"cannot write the download: {error}") from error
        finally:
            console.close()
        sys.stdout.write(f"{path}\n")
    return 0


def _list_released() -> str:
    from fixres.models.released import RELEASED

    width = max(map(len, RELEASED))
    lines = []
    for name, r in RELEASED.items():
        accuracy = f"{r.top1:.1f} % at {r.test_size} px" if r.top1 is not None else r.content
        lines.append(f"{name:<{width}}  {r.architecture:<24} {accuracy:<18} {r.license}")
    return "\n".join(lines) + "\n"
