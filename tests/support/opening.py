"""Opening collections, and what the user is told of those that cannot be opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import Collection, open_collection
from fixres.errors import UserError


def opened(uri: Path | str, classes: Iterable[str] | None = None, **settings: Any) -> Collection:
    """Open a collection without a split file."""
    return open_collection(Data(uri=str(uri), **settings), None, None if classes is None else tuple(classes))


def refusal(uri: Path | str, classes: Iterable[str] | None = None) -> str:
    """Return what the user is told when the collection cannot be opened."""
    with pytest.raises(UserError) as caught:
        opened(uri, classes)
    return str(caught.value)
