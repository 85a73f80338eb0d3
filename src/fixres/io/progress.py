"""What is told how far a work is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all: pictures, passes."""
NamedProgress = Callable[[str, int, int], None]
"""Called with what is being done, too."""
