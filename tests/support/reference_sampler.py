"""The sampler of repeated augmentation that others published, from its description."""

from __future__ import annotations

import numpy as np


def described(num: int, seed: int, epochs: int, repeats: int, factor: float, world: int) -> list[list[int]]:
    """Return what the description of the reference says of `epochs` epochs in one process, step by step."""
    generator = np.random.RandomState(seed)
    found = []
    for _ in range(epochs):
        left = generator.permutation(num).tolist()
        listed: list[int] = []
        while len(listed) < int(factor * num):
            if not left:
                left = generator.permutation(num).tolist()
            listed += [left.pop(0)] * repeats
        listed = listed[: int(factor * num)]
        total = -(-num * repeats // world) * world
        while len(listed) < total:
            listed += listed[: total - len(listed)]
        found.append(listed)
    return found
