"""The record of what `train PHOTOS` tried and chose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fixres.errors import UserError
from fixres.io.files import write_text
from fixres.training.probe import CHOICES


class Record:
    """RUN/choices.json, written whenever something is added to it."""

    def __init__(self, folder: Path, content: Mapping[str, Any] | None = None) -> None:
        self.path = folder / CHOICES
        self._content = dict(content or {})

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Return what an interrupted beginning left; nothing where there is none or it cannot be read."""
        try:
            content = json.loads((folder / CHOICES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        return cls(folder, content if isinstance(content, dict) else {})

    def get(self, key: str, default: Any) -> Any:
        """Return a value."""
        return self._content.get(key, default)

    def changed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are not as they were when the run began."""
        before = self.get("settings", {})
        return {key: value for key, value in settings.items() if before.get(key) != value}

    def require_models(self, models: Sequence[str]) -> None:
        """Refuse other networks than the run has chosen among.

        Raises:
            UserError: naming those.
        """
        before = self.get("models", list(models))
        if models and list(models) != before:
            raise UserError(
                f"{self.path.parent} has chosen already, among {', '.join(before) or 'the networks on this disk'}\n"
                "  leave --models out, or give another --out"
            )

    def note(self, **values: Any) -> None:
        """Add values and write the file."""
        self._content |= values
        write_text(self.path, json.dumps(self._content, indent=1) + "\n")
