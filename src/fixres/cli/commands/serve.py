"""The command `serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError


@dataclass(frozen=True)
class ServeFlags:
    """Flags of `fixres serve`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Any checkpoint, or a file of `fixres export`."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free one."""
    backend: Literal["torch", "onnxruntime", "openvino"] | None = None
    """What computes; torch for checkpoints, the format's own for exported files."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """The only sizes that are answered; left out: any the network takes, or on another backend train and test size."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes, each with a network of its own."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Of one worker; 0: the cores divided among the workers."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 16
    """Pictures computed at once."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long a picture waits for others that are on their way."""
    max_queue: Annotated[int, Field(ge=1)] = 256
    """Pictures in the server; beyond it the answer is 503 with Retry-After."""
    max_mb: Annotated[float, Field(gt=0, le=1024)] = 20.0
    """Megabytes of one request."""
    max_megapixels: Annotated[float, Field(gt=0, le=178)] = 50.0
    """Of one picture."""
    max_files: Annotated[int, Field(ge=1)] = 64
    """Of one request."""
    max_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Largest size a client may ask for; twice the test size, at least 448, when left out."""
    timeout: Annotated[float, Field(gt=0)] = 30.0
    """Seconds a client has to send its request."""
    token_file: Path | None = None
    """File with a token clients must show (Authorization: Bearer); or set FIXRES_TOKEN."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """before_fix, raw or ema; a file for timm:NAME."""
    quiet: bool = False
    """Print nothing but warnings."""


def serve(words: Sequence[str]) -> int:
    """`fixres serve CKPT [--host 127.0.0.1] [--port 8000]`."""
    flags = parse_flags(
        words, ServeFlags, "fixres serve", "Predictions over HTTP, and a page to see the effect of size."
    )
    from fixres.cli.console import Console
    from fixres.inference.server.launch import run_server
    from fixres.inference.server.settings import Limits, Settings

    token = _token(flags.token_file)
    limits = Limits(
        body_bytes=int(flags.max_mb * (1 << 20)),
        held_bytes=max(256 << 20, 2 * int(flags.max_mb * (1 << 20))),
        pixels=int(flags.max_megapixels * 1e6),
        files=min(flags.max_files, flags.max_queue),
        size=flags.max_size,
        waiting=flags.max_queue,
        seconds=flags.timeout,
    )
    settings = Settings(
        source=flags.checkpoint,
        model=flags.model,
        weights=flags.weights,
        backend=flags.backend,
        sizes=tuple(sorted(set(flags.sizes))),
        host=flags.host,
        port=flags.port,
        workers=flags.workers,
        threads=flags.threads,
        max_batch=flags.max_batch,
        max_wait_seconds=flags.max_wait_ms / 1000,
        limits=limits,
    )
    console = Console(flags.quiet)
    if not settings.is_local and not token:
        console.warn(f"anyone who can reach {flags.host} can use this server: --token-file FILE asks for a token")

    def on_ready(address: str, network: Any) -> None:
        console.preprocessing(network.preprocess, network.name)
        console.say(
            f"{network.architecture}, {len(network.classes)} classes, on {network.backend}; {network.size_rule}"
        )
        console.say(f"{address}   Ctrl-C ends it")

    return run_server(settings, token, on_ready)


def _token(path: Path | None) -> str:
    """Return the token of the file, or of the environment.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    if path is None:
        return os.environ.get("FIXRES_TOKEN", "").strip()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise UserError(f"{path} holds no token: one line of ASCII is wanted")
    return token
