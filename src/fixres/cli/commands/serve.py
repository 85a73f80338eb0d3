"""The command `serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fixres.checkpoints.source import require_there
from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError
from fixres.inference.server.settings import ServeRequest


@dataclass(frozen=True, kw_only=True)
class ServeFlags(ServeRequest):
    """Flags of `fixres serve`."""

    source: Annotated[str, Positional("CHECKPOINT")]
    token_file: Path | None = None
    """File with a token clients must show (Authorization: Bearer); or set FIXRES_TOKEN."""
    quiet: bool = False
    """Print nothing but warnings."""


def serve(words: Sequence[str]) -> int:
    """`fixres serve CKPT [--host 127.0.0.1] [--port 8000]`."""
    flags = parse_flags(
        words, ServeFlags, "fixres serve", "Predictions over HTTP, and a page to see the effect of size."
    )
    if not Path(flags.source).exists():
        require_there(flags.source)
    from fixres.cli.console import Console
    from fixres.inference.server.launch import run_server

    token = _token(flags.token_file)
    console = Console(flags.quiet)
    if not flags.is_local and not token:
        console.warn(f"anyone who can reach {flags.host} can use this server: --token-file FILE asks for a token")

    def on_ready(address: str, network: Any) -> None:
        for note in network.notes:
            console.say(note)
        console.preprocessing(network.preprocess, network.name)
        console.say(
            f"{network.architecture}, {len(network.classes)} classes, on {network.backend}; {network.size_rule}"
        )
        console.say(f"{address}   Ctrl-C ends it")

    return run_server(flags, token, on_ready)


def _token(path: Path | None) -> str:
    """Return the token of the file, or of the environment.

    Raises:
        UserError: the file cannot be read, or it, or the variable that is set, holds none.
    """
    if path is None and "FIXRES_TOKEN" not in os.environ:
        return ""
    try:
        token = (os.environ["FIXRES_TOKEN"] if path is None else path.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise UserError(f"{path or 'FIXRES_TOKEN'} holds no token: one line of ASCII is wanted")
    return token
