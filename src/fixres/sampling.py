"""Order, seeds and splits as pure functions of named coordinates.

Everything is derived from one 64-bit hash, so a result depends on neither the platform, the library versions nor the
number of processes that share the work. The hash is splitmix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def _hash(*coordinates: int) -> int:
    """Return a 64-bit hash in which the place of every coordinate matters."""
    state = 0
    for coordinate in coordinates:
        state = _mix(((state ^ (coordinate & _MASK)) + _GAMMA) & _MASK)
    return state


def _keys(num: int, base: int) -> npt.NDArray[np.uint64]:
    """Return `num` distinct 64-bit keys: outputs base + 1 ... base + num of the splitmix64 sequence."""
    with np.errstate(over="ignore"):
        state = np.uint64(base) + np.arange(1, num + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))


def sample_seed(seed: int, stage: int, epoch: int, index: int, copy: int) -> int:
    """Return the augmentation seed in [0, 2**63) of one sample.

    `copy` counts earlier occurrences of the same index in the epoch, so repeated pictures are augmented differently.
    """
    return _hash(seed, stage, epoch, index, copy) >> 1


def uniforms(num: int, *coordinates: int) -> npt.NDArray[np.float64]:
    """Return `num` numbers in [0, 1), float64 `[num]`, that depend on the coordinates alone."""
    return (_keys(num, _hash(*coordinates)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_order(num_images: int, seed: int, stage: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch visits the images: a permutation of 0 ... num_images - 1, int64."""
    keys = _keys(num_images, _hash(seed, stage, epoch))
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def stratified_split(
    strata: Sequence[Hashable], fractions: Mapping[str, float], seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Split indices 0 ... len(strata) - 1 so that every stratum is divided in the same proportion.

    Counts are exact in every stratum by largest remainder (ties go to the name that comes first). The parts are
    disjoint, cover every index and are sorted. An index keeps its draw whatever the strata are called.

    Raises:
        ValueError: the fractions are negative or do not sum to 1.
    """
    if any(share < 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-9):
        raise ValueError(f"fractions must be at least 0 and sum to 1, got {dict(fractions)}")
    keys = _keys(len(strata), _hash(seed))
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in fractions}
    for indices in members.values():
        group = np.asarray(indices, dtype=np.int64)
        shuffled = group[np.argsort(keys[group], kind="stable")]
        start = 0
        for name, count in _largest_remainder(len(group), fractions).items():
            parts[name].append(shuffled[start : start + count])
            start += count
    empty = np.empty(0, dtype=np.int64)
    return {name: np.sort(np.concatenate([empty, *groups])) for name, groups in parts.items()}


def _largest_remainder(num: int, fractions: Mapping[str, float]) -> dict[str, int]:
    quotas = {name: num * share for name, share in fractions.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    # Rounded, so that of two equal remainders noise in the last bits does not choose one.
    by_remainder = sorted(quotas, key=lambda name: -round(quotas[name] - counts[name], 9))
    for name in by_remainder[: num - sum(counts.values())]:
        counts[name] += 1
    return counts
