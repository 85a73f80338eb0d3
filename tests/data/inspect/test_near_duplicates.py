"""Look-alikes: copies are found whatever was done to them, and other pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.data.inspect.near_duplicates import HASH_LIMIT, close_pairs, likeness_hash, thumbnail
from tests.support.scenes import jpeg, look, paths, put, scene


@pytest.mark.parametrize(
    "change",
    [
        lambda image: Image.open(io.BytesIO(jpeg(image, 60))),
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: image.point(lambda value: int(value * 0.8)),
        lambda image: Image.open(io.BytesIO(jpeg(image.resize((image.width * 2, image.height * 2)), 75))),
    ],
    ids=["recompressed", "halved", "darker", "doubled"],
)
def test_copies_are_found_whatever_was_done_to_them(sound: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    for i in range(6):
        put(sound / "test" / "cat" / f"copy{i}.jpg", jpeg(change(scene(2 * i))))
    assert paths(look(sound), "near-duplicate") == [
        (f"test/cat/copy{i}.jpg", f"train/cat/{i:02}.jpg") for i in range(6)
    ]


def test_pictures_of_one_kind_are_not_called_copies(tmp_path: Path) -> None:
    # The same frame around different marks: alike at a glance, told apart by their details.
    frame = np.asarray(scene(1, 128, 128)).astype(int)
    for i in range(30):
        marks = np.random.default_rng(i).integers(-40, 40, (16, 16, 1)).repeat(8, 0).repeat(8, 1)
        picture = Image.fromarray((frame + marks).clip(0, 255).astype(np.uint8))
        put(tmp_path / ("train" if i < 20 else "test") / "ab"[i % 2] / f"{i}.jpg", jpeg(picture))
    assert paths(look(tmp_path), "near-duplicate") == []


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2**64 - 1)), max_size=8),
    st.integers(0, 8),
)
@settings(max_examples=200, deadline=None)
def test_close_pairs_are_those_of_a_full_comparison(
    references: list[int], changes: list[tuple[int, int]], limit: int
) -> None:
    # Queries near a reference (few bits changed) and far from all.
    queries = [references[k] ^ (1 << bits % 64) ^ (1 << bits % 61) for k, bits in changes if k < len(references)]
    queries += [bits for _, bits in changes]
    found = close_pairs(np.array(references, dtype=np.uint64), np.array(queries, dtype=np.uint64), limit, most=99)
    expected = {(i, j) for j, b in enumerate(queries) for i, a in enumerate(references) if (a ^ b).bit_count() <= limit}
    assert set(map(tuple, found.tolist())) == expected
    assert len(found) == len(expected)


def test_a_flood_of_equal_pictures_stays_small() -> None:
    pairs = close_pairs(np.zeros(20_000, dtype=np.uint64), np.zeros(5_000, dtype=np.uint64), HASH_LIMIT, most=20)
    assert len(pairs) == 5_000 * 20


def test_the_hash_survives_a_resize_and_tells_pictures_apart() -> None:
    hashes = [likeness_hash(thumbnail(scene(seed))) for seed in range(20)]
    for seed, own in enumerate(hashes):
        smaller = likeness_hash(thumbnail(scene(seed).resize((80, 60))))
        assert (own ^ smaller).bit_count() <= HASH_LIMIT
        assert all((own ^ other).bit_count() > HASH_LIMIT for other in hashes[:seed])
