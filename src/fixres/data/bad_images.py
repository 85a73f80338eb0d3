"""How many unreadable pictures training may leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fixres.data.splits import Split
from fixres.errors import UserError

_BAD_IMAGES_ALLOWED = 10
"""Unreadable pictures that `on_bad_image: skip` leaves out of any split, however small the share allowed."""

_BAD_IMAGES_NAMED = 5
"""Of too many, those that the error names."""


def bad_image_limit(num_images: int, max_bad_images: float) -> int:
    """Return how many pictures of a split training may leave out: the share of it, at least 10, and never all."""
    return max(0, min(max(_BAD_IMAGES_ALLOWED, math.floor(max_bad_images * num_images + 1e-9)), num_images - 1))


def require_few_bad(split: Split, share: float, bad: Sequence[str], last: str = "") -> None:
    """Refuse more unreadable pictures `bad` than training may leave out of a split.

    Raises:
        UserError: there are too many; `last` is added to the message.
    """
    limit = bad_image_limit(len(split), share)
    if len(bad) <= limit:
        return
    named = ", ".join(bad[:_BAD_IMAGES_NAMED]) + (", ..." if len(bad) > _BAD_IMAGES_NAMED else "")
    if len(bad) == len(split):
        raise UserError(
            f"none of the {len(split)} pictures of '{split.name}' can be read: {named}{last}\n"
            "  repair or replace them; fixres data check URI names what is wrong with each"
        )
    enough = min(1.0, math.ceil(200 * len(bad) / len(split)) / 100)
    raise UserError(
        f"{len(bad)} pictures of '{split.name}' cannot be read, and {limit} of its {len(split)} may be left out "
        f"(data.max_bad_images {share:g}, at least {_BAD_IMAGES_ALLOWED}): {named}{last}\n"
        "  fixres data check URI names all of them; repair or remove them, "
        f"or leave out more: --data.max_bad_images {enough:g}"
    )
