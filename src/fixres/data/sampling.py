"""Order, seeds and splits as pure functions of named coordinates.

Everything is derived from one 64-bit hash, so a result depends on neither the platform, the library versions nor the
number of processes that share the work. The hash is splitmix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fixres.config.stage import Sampler

Indices = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_PIECE = 1 << 16
MANY_PASSES = 20
"""Passes over the split in one epoch above which a number of samples probably was meant for another collection."""


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
    keys = np.arange(1, num + 1, dtype=np.uint64)
    # In pieces: of ten million keys at once, what lies in between would take four times their memory.
    for start in range(0, num, _PIECE):
        piece = slice(start, start + _PIECE)
        with np.errstate(over="ignore"):
            keys[piece] = _mix_all(np.uint64(base) + keys[piece] * np.uint64(_GAMMA))
    return keys


def _mix_all(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return `_mix` of every value; the caller lets numpy overflow."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX_1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX_2)
    return values ^ (values >> np.uint64(31))


def sample_seed(seed: int, stage: int, epoch: int, index: int, copy: int) -> int:
    """Return the augmentation seed in [0, 2**63) of one sample.

    `copy` counts earlier occurrences of the same index in the epoch, so repeated pictures are augmented differently.
    """
    return _hash(seed, stage, epoch, index, copy) >> 1


def sample_draws(
    num: int, seed: int, stage: int, epoch: int, indices: Indices, copies: Indices
) -> npt.NDArray[np.float64]:
    """Return `num` numbers in [0, 1) for each of a batch of samples, float64 `[B, num]`.

    Row i follows from (seed, stage, epoch, indices[i], copies[i]) alone: the draws of `sample_seed`'s coordinates.
    """
    with np.errstate(over="ignore"):
        state = np.full(len(indices), _hash(seed, stage, epoch), dtype=np.uint64)
        for coordinate in (indices, copies):
            state = _mix_all((state ^ coordinate.astype(np.uint64)) + np.uint64(_GAMMA))
        state = _mix_all(state[:, None] + np.arange(1, num + 1, dtype=np.uint64) * np.uint64(_GAMMA))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms(num: int, *coordinates: int) -> npt.NDArray[np.float64]:
    """Return `num` numbers in [0, 1), float64 `[num]`, that depend on the coordinates alone."""
    return (_keys(num, _hash(*coordinates)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _permutations(num_items: int, num: int, *coordinates: int) -> Indices:
    """Return `num` places in 0 ... num_items - 1: permutations of all of them one after the other, the last one cut."""
    cycles = -(-num // num_items) if num else 0
    keys = _keys(cycles * num_items, _hash(*coordinates)).reshape(cycles, num_items)
    # No two keys are equal, so any sort gives the same order; a stable one takes half as much memory again.
    return np.argsort(keys, axis=1).astype(np.int64, copy=False).ravel()[:num]


def stratified_order(labels: Indices, seed: int) -> Indices:
    """Return an order of pictures: the first of every class, then as every first part has about the shares of all."""
    draws = uniforms(len(labels), seed)
    order = np.lexsort((draws, labels))
    counts = np.bincount(labels)
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(labels))
    rank[order] = (np.arange(len(labels)) - firsts[labels[order]]) / counts[labels[order]]
    return np.lexsort((draws, rank)).astype(np.int64)


def num_epoch_samples(num_images: int, epoch_samples: float | str) -> int:
    """Return the samples of an epoch over `num_images` pictures.

    An int is their number, a float a multiple of `num_images`; "SAMPLES/PICTURES" is SAMPLES where there are as many
    pictures as it was published for, and the same multiple elsewhere.
    """
    if isinstance(epoch_samples, str):
        samples, published_for = published_length(epoch_samples)
        return samples * num_images // published_for
    return epoch_samples if isinstance(epoch_samples, int) else math.floor(epoch_samples * num_images + 1e-9)


def num_solved_on(num_images: int, epoch_samples: float | str) -> int:
    """Return how many of `num_images` pictures a head is solved on, each at most once."""
    return min(num_images, num_epoch_samples(num_images, epoch_samples))


def published_length(epoch_samples: str) -> tuple[int, int]:
    """Return the two numbers of "SAMPLES/PICTURES"."""
    samples, _, pictures = epoch_samples.partition("/")
    return int(samples), int(pictures)


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 1000 else f"{factor:.4g}"


def describe_length(num_images: int, epoch_samples: float | str, key: str) -> str:
    """Return what to say of an epoch's length that is not the one written down, or far from the split's; else nothing.

    `key` names the stage in the recipe.
    """
    num = num_epoch_samples(num_images, epoch_samples)
    if isinstance(epoch_samples, str):
        samples, published_for = published_length(epoch_samples)
        if num_images == published_for:
            return ""
        return (
            f"an epoch of stage {key} is {_times(num / num_images)} x the {num_images:,} pictures here, {num:,} "
            f"samples: the {samples:,} of {key}.epoch_samples belong to the {published_for:,} pictures it was "
            "published for"
        )
    if isinstance(epoch_samples, int) and num > MANY_PASSES * num_images:
        return (
            f"an epoch of stage {key} is {num / num_images:,.0f} x the {num_images:,} pictures here: "
            f"{key}.epoch_samples is the number {num:,}; a multiple has a point, such as 1.0"
        )
    return ""


def epoch_indices(
    labels: Indices, num_samples: int, sampler: Sampler, repeats: int, seed: int, stage: int, epoch: int
) -> Indices:
    """Return the pictures of an epoch in their order, int64 `[num_samples]`.

    Args:
        labels: int64 `[N]`, the class of every picture.
        num_samples: length of the epoch, copies counted; with more than `repeats * N` pictures come back.
        sampler: shuffle (permutations), balanced (`balanced_order`) or compat (`compat_list`).
        repeats: times a drawn picture is repeated in a row. Neighbours in this order go to neighbouring processes
            (`rank_shard`), so the copies of a picture meet in one step but not in one batch normalisation.
    """
    if sampler == "compat":
        return compat_list(len(labels), num_samples, repeats, seed, epoch)
    num_drawn = -(-num_samples // repeats)
    if sampler == "balanced":
        drawn = balanced_order(labels, num_drawn, seed, stage, epoch)
    else:
        drawn = _permutations(len(labels), num_drawn, seed, stage, epoch)
    return np.repeat(drawn, repeats)[:num_samples]


def copy_numbers(order: Indices) -> Indices:
    """Return for every place how often its index occurred earlier in `order`, int64: the copy of `sample_seed`."""
    if len(order) and np.bincount(order).max() == 1:
        return np.zeros(len(order), dtype=np.int64)  # sorting ten million places would need half a gigabyte
    by_index = np.argsort(order, kind="stable")
    ordered = order[by_index]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(order), dtype=np.int64)
    copies = np.empty(len(order), dtype=np.int64)
    copies[by_index] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return copies


def rank_shard(order: Indices, rank: int, world: int) -> Indices:
    """Return what process `rank` of `world` takes of an epoch: every `world`-th entry.

    The shards partition the epoch for any `world`; their lengths differ by at most 1.
    """
    return order[rank::world]


def balanced_order(labels: Indices, num_samples: int, seed: int, stage: int, epoch: int) -> Indices:
    """Return an epoch that shows every class equally often, int64 `[num_samples]`.

    It goes round by round: each round holds one picture of every class that has any, classes in random order, so
    that any part of the epoch is balanced too. Within a class no picture comes back before all have been shown.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    rounds = -(-num_samples // len(present))
    keys = _keys(rounds * len(present), _hash(seed, stage, epoch, 1)).reshape(rounds, len(present))
    turns = present[np.argsort(keys, axis=1, kind="stable").ravel()[:num_samples]]
    members = np.argsort(labels, kind="stable")
    places = np.argsort(turns, kind="stable")
    num_turns = np.bincount(turns, minlength=len(counts))
    first_member, first_place = np.cumsum(counts) - counts, np.cumsum(num_turns) - num_turns
    order = np.empty(num_samples, dtype=np.int64)
    for label in present.tolist():
        own = members[first_member[label] : first_member[label] + counts[label]]
        chosen = _permutations(len(own), int(num_turns[label]), seed, stage, epoch, 2, label)
        order[places[first_place[label] : first_place[label] + num_turns[label]]] = own[chosen]
    return order


def compat_list(num_images: int, num_samples: int, repeats: int, seed: int, epoch: int) -> Indices:
    """Return the epoch of FixRes' repeated-augmentation sampler, int64 `[num_samples]`.

    What that one pads it with, so that every process has its share, its training loop stops before.

    Permutations come from numpy's global generator, seeded once when training starts, so epoch e goes on where epoch
    e - 1 stopped. The stage plays no part: in the reference each one is a process of its own.
    """
    generator = np.random.RandomState(seed)
    num_permutations = -(-num_samples // (repeats * num_images))
    for _ in range(epoch * num_permutations):
        generator.permutation(num_images)
    drawn = [generator.permutation(num_images) for _ in range(num_permutations)]
    return np.repeat(np.concatenate([np.empty(0, dtype=np.int64), *drawn]), repeats)[:num_samples]


def inverse_frequency(counts: Indices) -> npt.NDArray[np.float64]:
    """Return class weights `[C]`, float64: inverse to the counts, mean 1 over samples; 0 for a class without any."""
    return mean_one(np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0), counts)


def mean_one(weights: npt.NDArray[np.float64], counts: Indices) -> npt.NDArray[np.float64]:
    """Return class weights `[C]` scaled so that their mean over all samples is 1, which keeps the learning rate."""
    return weights * (float(counts.sum()) / float(weights @ counts))


def stratified_split(
    strata: Sequence[Hashable] | npt.NDArray[np.int64], fractions: Mapping[str, float], seed: int
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
    if isinstance(strata, np.ndarray):
        codes = strata
    else:
        places: dict[Hashable, int] = {}
        codes = np.array([places.setdefault(stratum, len(places)) for stratum in strata], dtype=np.int64)
    # Stratum by stratum, within each in the order of the draws; ten million fit where lists of them would not.
    shuffled = np.lexsort((keys, codes))
    bounds = [0, *(np.flatnonzero(np.diff(codes[shuffled])) + 1).tolist(), len(codes)]
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in fractions}
    for start, end in itertools.pairwise(bounds):
        for name, count in _largest_remainder(end - start, fractions).items():
            parts[name].append(shuffled[start : start + count])
            start += count
    empty = np.empty(0, dtype=np.int64)
    return {name: np.sort(np.concatenate([empty, *groups])) for name, groups in parts.items()}


def stratified_folds(labels: Indices, num_folds: int, seed: int) -> Indices:
    """Return the fold of every picture, 0 ... num_folds - 1, for labels int64 `[N]`.

    The folds of a class, and all of them together, differ by at most one picture in size; a class of fewer pictures
    than folds is in as many of them as it has pictures.
    """
    keys = _keys(len(labels), _hash(seed))
    folds = np.empty(len(labels), dtype=np.int64)
    # Class by class, within each in the order of the draws, the folds take turns.
    folds[np.lexsort((keys, labels))] = np.arange(len(labels)) % num_folds
    return folds


def _largest_remainder(num: int, fractions: Mapping[str, float]) -> dict[str, int]:
    quotas = {name: num * share for name, share in fractions.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    # Rounded, so that of two equal remainders noise in the last bits does not choose one.
    by_remainder = sorted(quotas, key=lambda name: -round(quotas[name] - counts[name], 9))
    for name in by_remainder[: num - sum(counts.values())]:
        counts[name] += 1
    return counts
