"""Unreadable images that training left out: told once, counted over all processes, and too many of them refused."""

from __future__ import annotations

from collections.abc import Sequence

from fixres.data.loader import require_few_bad
from fixres.training.context import RunContext


class BadImageLog:
    """The unreadable images of one stage."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.own: list[str] = []
        """Paths this process left out; the loader adds to it."""
        self._num_told = 0
        self._all: dict[str, None] = {}

    @property
    def has_news(self) -> bool:
        """Whether this process left out an image that the log does not have."""
        return len(self.own) > self._num_told

    def tell(self) -> None:
        """Log what any process has newly left out.

        Raises:
            UserError: all processes together have left out too many.
        """
        found = self.context.runtime.processes.gather(self.own[self._num_told :])
        self._num_told = len(self.own)
        names = [name for name in dict.fromkeys(n for names in found for n in names) if name not in self._all]
        self._all |= dict.fromkeys(names)
        self.context.log.left_out(names)
        split = self.context.collection.split("train")
        require_few_bad(split, self.context.recipe.data.max_bad_images, [*self._all])

    def restore_all(self, names: Sequence[str]) -> None:
        """Take over what all processes had left out when a checkpoint was written."""
        self._all = dict.fromkeys(names)
        self.context.log.bad_images |= self._all

    def restore_own(self, names: Sequence[str]) -> None:
        """Take over what this process had left out, and told."""
        self.own.extend(names)
        self._num_told = len(self.own)
