"""The licence that weights come with."""

from __future__ import annotations

import json
from pathlib import Path

from fixres.checkpoints.source import weights_and_kind
from fixres.models.released import find_released


def license_of(source: str) -> str:
    """Return the licence that comes with a source of weights, or an empty string where none is known."""
    scheme, _, name = source.partition(":")
    if scheme == "fixres":
        return find_released(name).license
    folder = Path(weights_and_kind(source)[0])
    for config in (folder / "model" / "config.json", folder / "config.json"):
        if config.is_file():
            own = json.loads(config.read_text()).get("fixres", {})
            return str(own.get("data", {}).get("weights_license") or "")
    return ""
