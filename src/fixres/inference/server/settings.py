"""What a server was asked for, and what it was started with, which travels to worker processes as JSON."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, fields
from typing import Annotated

from pydantic import Field, TypeAdapter

from fixres.checkpoints.feeding_request import Feeding
from fixres.config.choices import BackendName, Count
from fixres.config.stage import Above0, Positive
from fixres.errors import seconds_from

HostName = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Origin = Annotated[str, Field(pattern=r"^https?://[^/\s*]+$")]


def decode_seconds() -> float:
    """Return how long decoding one picture may take.

    Raises:
        UserError: FIXRES_DECODE_SECONDS is no positive number.
    """
    return seconds_from("FIXRES_DECODE_SECONDS", 10.0)


def is_local_name(host: str) -> bool:
    """Return whether a host name or address, without a port, is this machine to itself."""
    name = host.strip("[]").removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class ServeRequest(Feeding):
    """What `fixres serve` is asked for."""

    source: str
    """Any checkpoint, with #raw, #ema or #before_fix for its weights, or a file of `fixres export`."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free one."""
    backend: BackendName | None = None
    """What computes; torch for checkpoints, the format's own for exported files."""
    sizes: tuple[Positive, ...] = ()
    """The only sizes that are answered; left out: any the network takes, or on another backend train and test size."""
    degrade_to: Positive | None = None
    """Smaller size for pictures that come while more than two batches are in the server, unless a size, a promise or an
    explanation is asked for; answers and metrics say so. Left out: never."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes, each with a network of its own."""
    threads: Count = 0
    """Of one worker; 0: the cores divided among the workers."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 16
    """Pictures computed at once."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long a picture waits for others that are on their way."""
    max_queue: Positive = 256
    """Pictures in the server; beyond it the answer is 503 with Retry-After."""
    max_mb: Annotated[float, Field(gt=0, le=1024)] = 20.0
    """Megabytes of one request."""
    max_megapixels: Annotated[float, Field(gt=0, le=178)] = 50.0
    """Of one picture."""
    max_files: Positive = 64
    """Of one request."""
    max_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Largest size a client may ask for; twice the test size, at least 448, when left out."""
    timeout: Above0 = 30.0
    """Seconds a client has to send its request."""
    allow_host: tuple[HostName, ...] = ()
    """Names this server is reached by through a proxy that keeps the Host header; others are refused then."""
    allow_origin: tuple[Origin, ...] = ()
    """Web sites, as https://name, whose pages may use this server."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """before_fix, raw or ema; a file for timm:NAME."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_local_name(self.host)


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and all of them together."""

    body_bytes: int = 20 << 20
    """Of one request."""
    held_bytes: int = 256 << 20
    """Of all request bodies in memory at once."""
    pixels: int = 50_000_000
    """Of one picture, decided from its header."""
    files: int = 64
    """Pictures of one request."""
    size: int | None = None
    """Largest size in pixels a client may ask for; None: twice the product's test size, at least 448."""
    waiting: int = 256
    """Pictures being read, waiting or computed; beyond it the answer is 503."""
    seconds: float = 30.0
    """For a client to send its request, and again for the answer to be computed."""


@dataclass(frozen=True, kw_only=True)
class Settings(ServeRequest):
    """What was asked for, in the units that requests are counted in, and what the first process found out."""

    limits: Limits = Limits()
    meters: str = ""
    """Folder in which workers keep their counters, where there are several."""
    expected_sha256: str = ""
    """Of the weights the first process saw; a worker that finds others does not start."""

    @classmethod
    def of(cls, request: ServeRequest) -> Settings:
        """Return the settings of a server that was asked for."""
        asked = {entry.name: getattr(request, entry.name) for entry in fields(ServeRequest)}
        body_bytes = int(request.max_mb * (1 << 20))
        limits = Limits(
            body_bytes=body_bytes,
            held_bytes=max(Limits.held_bytes, 2 * body_bytes),
            pixels=int(request.max_megapixels * 1e6),
            files=min(request.max_files, request.max_queue),
            size=request.max_size,
            waiting=request.max_queue,
            seconds=request.timeout,
        )
        return cls(**{**asked, "sizes": tuple(sorted(set(request.sizes)))}, limits=limits)

    def to_json(self) -> str:
        """Return the text `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings another process wrote."""
        return TypeAdapter(cls).validate_json(text)
