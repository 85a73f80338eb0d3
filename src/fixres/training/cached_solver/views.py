"""The fixed views of a picture that the cached solver computes features of."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from fixres.resolution import Preprocess

MAX_VIEWS = 10
_VIEWS = (
    # place of the crop across and down, in half margins from the centre; mirrored or not
    (0, 0, False),
    (0, 0, True),
    (-1, 0, False),
    (1, 0, True),
    (1, 0, False),
    (-1, 0, True),
    (0, -1, False),
    (0, 1, True),
    (0, 1, False),
    (0, -1, True),
)
"""The test-time view, its mirror image, then crops shifted to the sides and to top and bottom."""


def preprocesses(preprocess: Preprocess, num_views: int) -> tuple[Preprocess, ...]:
    """Return what a picture is decoded to: the test-time view, and the whole resized square where crops are shifted.

    Raises:
        ValueError: more views than there are, or shifted crops where the crop is all there is.
    """
    limit = max_views(preprocess)
    if not 1 <= num_views <= limit:
        raise ValueError(f"{num_views} views; here there are 1 to {limit}")
    if num_views <= 2:
        return (preprocess,)
    return preprocess, replace(preprocess, size=preprocess.resize_size, crop_ratio=1.0)


def max_views(preprocess: Preprocess) -> int:
    """Return how many different views the preprocessing has: two where the crop leaves no margin to shift in."""
    has_margin = preprocess.resize in ("shorter", "height") and preprocess.resize_size - preprocess.size >= 2
    return MAX_VIEWS if has_margin else 2


def view(images: tuple[Tensor, ...], number: int, size: int) -> Tensor:
    """Return view `number` `[B, 3, size, size]` of pictures decoded with `preprocesses`."""
    across, down, is_mirrored = _VIEWS[number]
    if across or down:
        margin = images[1].shape[-1] - size
        left, top = (margin * (1 + shift) // 2 for shift in (across, down))
        found = images[1][..., top : top + size, left : left + size]
    else:
        found = images[0]
    return found.flip(-1) if is_mirrored else found
