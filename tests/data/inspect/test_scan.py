"""Pictures looked at by several processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixres.data.inspect import scan
from fixres.errors import UserError
from tests.support.scenes import train_split


def _die(split: object, places: range) -> None:
    os._exit(9)


def test_a_killed_process_is_said(sound: Path) -> None:
    report = scan.in_chunks({"train": train_split(sound)}, _die, 2)
    with pytest.raises(UserError, match="killed"):
        list(report)
