"""What a server was started with; it travels to worker processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Backend = Literal["torch", "onnxruntime", "openvino"]


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


@dataclass(frozen=True)
class Settings:
    """Everything `fixres serve` was told."""

    source: str
    """Checkpoint or exported file."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    backend: Backend | None = None
    """None: torch for checkpoints, the format's own for exported files."""
    sizes: tuple[int, ...] = ()
    """The only sizes that are answered; empty: any the network takes (torch), or the train and test size."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 0
    """Of one worker; 0: the machine's cores divided among the workers."""
    max_batch: int = 16
    max_wait_seconds: float = 0.005
    """How long a picture waits for others to be computed with, where others are on their way."""
    limits: Limits = Limits()
    meters: str = ""
    """Folder in which workers keep their counters, where there are several."""
    expected_sha256: str = ""
    """Of the weights the first process saw; a worker that finds others does not start."""

    def to_json(self) -> str:
        """Return the text `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings another process wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "limits": Limits(**fields["limits"]), "sizes": tuple(fields["sizes"])})

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in ("127.0.0.1", "localhost", "::1")
