"""The minutes: what is left of them, and what training that allows, from speeds that were measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_EPOCHS, FEWEST_PICTURES = 4, 8_000
"""Epochs that a training must have room for, of many pictures as many as hold so many: with fewer, a network that
starts from a solved head ends below that head, since the rate has to rise and to fall again meanwhile."""
ENOUGH_OF_WHOLE = 10
"""Epochs that training a whole network must have room for: with fewer it is not as good as its last part alone."""
MOST_EPOCHS = 20
"""Epochs after which a small collection gains nothing more from the same rate."""
_SAFETY = 0.9
"""Share of the time left that is planned: a step may become slower, and an end that comes early costs nothing."""


class Clock:
    """Seconds of the minutes that are left, those of an interrupted beginning counted."""

    def __init__(self, minutes: float, started: float, earlier: float = 0.0) -> None:
        """`started`: time.monotonic() when the program began."""
        self.end = started + 60 * minutes - earlier
        self.started, self.earlier = started, earlier

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def share(self, part: float, more: float = 0.0) -> float:
        """Return the seconds that are left of the first part of the minutes, and of as many more."""
        return max(0.0, self.left + more - (1 - part) * (self.end - self.started + self.earlier))

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.earlier + time.monotonic() - self.started


@dataclass(frozen=True)
class Pace:
    """How fast a network is at one size, reading included."""

    size: int
    """Side in pixels."""
    forward: float
    """Pictures a second that are measured or turned into features."""
    training: float
    """Pictures a second that are trained on."""
    overhead: float = 0.0
    """Seconds of everything else that training at this size brings: heads that are solved, the fix, measurements."""
    has_control: bool = True
    """Whether that includes solving the head at the train size after training, to tell what the larger size gains."""
    is_whole: bool = True
    """Whether the whole network is trained, and not its last part alone."""


@dataclass(frozen=True)
class Planned:
    """A training that fits the time."""

    size: int
    epochs: int
    seconds: float
    """Estimated, of training and the measurements between its epochs."""
    overhead: float = 0.0
    """Estimated, of everything else."""
    has_control: bool = True
    """Whether there is time to tell what the larger size gains from what a new head does."""
    is_whole: bool = True
    """Whether the whole network is trained, and not its last part alone."""


def shortest_training(paces: Sequence[Pace], num_train: int, num_select: int) -> float:
    """Return the seconds that `plan_training` must be given for the shortest training there is at any size."""
    return min(
        fewest_epochs(num_train) * (num_train / pace.training + num_select / pace.forward) / _SAFETY + pace.overhead
        for pace in paces
    )


def fewest_epochs(num_train: int) -> int:
    """Return the epochs of `num_train` pictures below which nothing is trained."""
    return min(FEWEST_EPOCHS, -(-FEWEST_PICTURES // max(1, num_train)))


def plan_training(seconds: float, paces: Sequence[Pace], num_train: int, num_select: int) -> Planned | None:
    """Return the training to do: at the largest size that leaves room for `fewest_epochs`.

    Whole where there is room for `ENOUGH_OF_WHOLE`, else its last part alone; with a control where there is room.

    Args:
        seconds: time left for it.
        paces: the sizes to choose from, each whole and perhaps in part, with a control and without.
        num_train: pictures of an epoch.
        num_select: pictures measured after each epoch.

    Returns:
        None where so many fit at no size.
    """
    fitting: list[Planned] = []
    for pace in paces:
        each = num_train / pace.training + num_select / pace.forward
        epochs = min(MOST_EPOCHS, int(_SAFETY * max(0.0, seconds - pace.overhead) / each))
        if epochs:
            fitting.append(Planned(pace.size, epochs, epochs * each, pace.overhead, pace.has_control, pace.is_whole))
    has_parts, fewest = any(not one.is_whole for one in paces), fewest_epochs(num_train)
    for_whole = ENOUGH_OF_WHOLE * fewest // FEWEST_EPOCHS if has_parts else fewest
    enough = [one for one in fitting if one.epochs >= (for_whole if one.is_whole else fewest)]
    return max(enough, key=lambda one: (one.size, one.is_whole, one.has_control), default=None)
