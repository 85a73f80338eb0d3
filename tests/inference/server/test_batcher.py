"""Pictures computed together: one key a batch, and failures stay with their own."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch

from fixres.inference.server.batcher import Batcher


def test_batches_have_one_key_and_no_more_than_the_limit() -> None:
    seen: list[tuple[int, int]] = []

    def compute(key: int, images: torch.Tensor) -> np.ndarray:
        seen.append((key, len(images)))
        return images.double().mean((1, 2, 3)).numpy()[:, None]

    async def scenario() -> list[float]:
        batcher: Batcher[int] = Batcher(compute, 4, 0.05, lambda: True, lambda *_: None)
        images = [(i % 2, torch.full((3, 2, 2), i, dtype=torch.uint8)) for i in range(20)]
        pending = [asyncio.create_task(batcher(key, image)) for key, image in images]
        given_up = pending[4]
        await asyncio.sleep(0)
        given_up.cancel()
        batcher.start()
        rows = await asyncio.gather(*pending, return_exceptions=True)
        await batcher.stop()
        return [float(row[0]) if isinstance(row, np.ndarray) else -1.0 for row in rows]

    answers = asyncio.run(scenario())
    assert answers == [float(i) if i != 4 else -1.0 for i in range(20)]
    assert sum(num for _, num in seen) == 19
    assert max(num for _, num in seen) == 4
    assert len(seen) == 6


def test_a_network_that_fails_fails_its_own_pictures_only() -> None:
    def compute(key: str, images: torch.Tensor) -> np.ndarray:
        if key == "bad":
            raise RuntimeError("out of memory")
        return np.zeros((len(images), 1))

    async def scenario() -> list[Any]:
        batcher: Batcher[str] = Batcher(compute, 4, 0.0, lambda: False, lambda *_: None)
        batcher.start()
        image = torch.zeros(3, 2, 2, dtype=torch.uint8)
        found = await asyncio.gather(*(batcher(key, image) for key in ("bad", "good", "good")), return_exceptions=True)
        alive = batcher.is_alive
        await batcher.stop()
        return [*found, alive]

    bad, good, other, alive = asyncio.run(scenario())
    assert isinstance(bad, RuntimeError)
    assert float(good[0]) == float(other[0]) == 0
    assert alive
