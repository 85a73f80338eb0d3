"""The command `fetch`: released weights, downloaded with resume and checksum."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fixres.cli.commands.common import download_bar
from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError


@dataclass(frozen=True)
class FetchFlags:
    """Flags of `fixres fetch`."""

    names: Annotated[tuple[str, ...], Positional("NAMES")] = ()
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
