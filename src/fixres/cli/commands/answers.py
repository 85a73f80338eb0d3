"""The objects of `--json`: where they may go, and how they are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixres.errors import UserError


def refuse_folder(path: Path | None) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        UserError: `path` is a folder.
    """
    if path is not None and path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")


def write_answer(path: Path | None, answer: Mapping[str, Any]) -> None:
    """Write an answer as JSON to a file, to stdout for -, nowhere for None."""
    from fixres.io.files import write_text

    if path is None:
        return
    text = json.dumps(answer, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)
