"""Pictures that look alike: a 64-bit perceptual hash, pairs of hashes that are close, and a second look at each pair.

The hash is the sign of the 64 lowest frequencies of a 32 x 32 grey thumbnail against their median (pHash; Zauner
2010). It survives recompression, resizing and small changes of brightness, and not crops, turns or mirroring.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

SIDE = 32
"""Side of a thumbnail in pixels."""

HASH_LIMIT = 6
"""Bits two hashes may differ in. 99 of 100 copies at half the size or JPEG quality 60 stay within 4."""

BASELINE_PICTURES = 300
"""Pictures of one split whose agreement with each other shows how alike unrelated pictures are."""

_FREQUENCIES = 8
_DETAIL_SIDE = 64
_BLOCK = 1_000_000
_PAIRS = 4096

_DCT = np.cos(np.pi / SIDE * np.outer(np.arange(_FREQUENCIES), np.arange(SIDE) + 0.5))


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an RGB picture as grey uint8 `[32, 32]`, whatever its aspect."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small.convert("L"))


def likeness_hash(small: npt.NDArray[np.uint8]) -> int:
    """Return the perceptual hash, 64 bits, of a thumbnail."""
    low = (_DCT @ small.astype(np.float64) @ _DCT.T).ravel()
    return int(np.packbits(low > np.median(low)).view(">u8")[0])


def close_pairs(
    references: npt.NDArray[np.uint64], queries: npt.NDArray[np.uint64], limit: int, most: int = 20
) -> npt.NDArray[np.int64]:
    """Return every (reference, query) whose hashes differ in at most `limit` bits, int64 `[P, 2]`, sorted by query.

    Of equal references and of references equally good, a query gets the first `most` by distance. Two hashes that
    differ in `limit` bits agree in one of `limit` + 1 bands, so only pairs that share a band are compared.
    """
    own, where = np.unique(references, return_inverse=True)
    asked, who = np.unique(queries, return_inverse=True)
    found = [np.empty((0, 2), dtype=np.int64)]
    edges = np.linspace(0, 64, limit + 2).round().astype(int)
    for low, high in pairwise(edges.tolist()):
        found.extend(_sharing_a_band(own, asked, limit, (low, high)))
    pairs = np.unique(np.concatenate(found), axis=0)
    # From pairs of hashes to pairs of pictures, for each query the `most` closest.
    distance = np.bitwise_count(own[pairs[:, 0]] ^ asked[pairs[:, 1]])
    order = np.argsort(where, kind="stable")
    starts = np.searchsorted(where[order], np.arange(len(own) + 1))
    closest: dict[int, list[int]] = {}
    for reference, query in pairs[np.lexsort((pairs[:, 0], distance, pairs[:, 1]))].tolist():
        alike = closest.setdefault(query, [])
        alike += order[starts[reference] : starts[reference + 1]][: most - len(alike)].tolist()
    result = [(picture, query) for query, place in enumerate(who.tolist()) for picture in closest.get(place, ())]
    return np.array(result, dtype=np.int64).reshape(-1, 2)


def _sharing_a_band(
    own: npt.NDArray[np.uint64], asked: npt.NDArray[np.uint64], limit: int, band: tuple[int, int]
) -> Iterator[npt.NDArray[np.int64]]:
    low, high = band
    mask = np.uint64((1 << (high - low)) - 1)
    keys = (own >> np.uint64(low)) & mask
    order = np.argsort(keys, kind="stable")
    wanted = (asked >> np.uint64(low)) & mask
    first = np.searchsorted(keys[order], wanted, "left")
    counts = np.searchsorted(keys[order], wanted, "right") - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(asked):
        # As many queries at once as keep the block of comparisons small.
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
        part = counts[start:stop]
        query = np.repeat(np.arange(start, stop), part)
        within = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        reference = order[np.repeat(first[start:stop], part) + within]
        close = np.bitwise_count(own[reference] ^ asked[query]) <= limit
        yield np.stack([reference[close], query[close]], axis=1)
        start = stop


def detail(image: Image.Image) -> npt.NDArray[np.float16]:
    """Return what a grey 64 x 64 copy of an RGB picture has beyond its blur, scaled to length 1, float16 `[4096]`."""
    small = image.resize((_DETAIL_SIDE, _DETAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    sharp = np.asarray(small, dtype=np.float32) - np.asarray(small.filter(ImageFilter.GaussianBlur(3)), np.float32)
    centred = (sharp - sharp.mean()).ravel()
    scaled: npt.NDArray[np.float16] = (centred / max(float(np.linalg.norm(centred)), 1e-3)).astype(np.float16)
    return scaled


def agreement(details: npt.NDArray[np.float16], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the correlation of the details `[N, 4096]` of every pair `[P, 2]` of their rows, float64 `[P]`."""
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS):
        one, other = (details[pairs[start : start + _PAIRS, side]].astype(np.float64) for side in (0, 1))
        result[start : start + _PAIRS] = (one * other).sum(axis=1)
    return result


def copy_limit(details: npt.NDArray[np.float16]) -> float:
    """Return the agreement from which two pictures count as copies, between 0.9 and 0.998.

    `details` `[N, 4096]` are of pictures that are no copies of each other, but for a few. Photographs of different
    things agree to less than 0.3, solar cells of one make to 0.97: a copy may leave a ninth of the difference that
    the most alike 0.5 % of these pairs have.
    """
    every = details.astype(np.float64)
    pairs = (every @ every.T)[np.triu_indices(len(every), 1)]
    usual = float(np.quantile(pairs, 0.995)) if len(pairs) else 0.0
    return min(max(1 - (1 - usual) / 9, 0.9), 0.998)
