"""THE METHOD: size arithmetic, apparent object size, and which size to choose.

FixRes (Touvron et al. 2019): random crops make objects look larger in training than the centre crop does in testing.
Train small, then adapt the end of the network at a larger test size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

HARDLY_LARGER = 0.05
"""Share of the train size by which objects of another apparent size do not matter."""
Triple = tuple[float, float, float]
Resize = Literal["shorter", "height", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Exif = Literal["apply", "ignore"]
Alpha = Literal["white", "ignore"]


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input at test time. It travels inside every checkpoint."""

    size: int
    crop_ratio: float = 0.875
    resize: Resize = "shorter"
    interpolation: Interpolation = "bilinear"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    exif: Exif = "apply"
    alpha: Alpha = "white"
    exact: bool = False

    @property
    def resize_size(self) -> int:
        """Shorter side in pixels before the centre crop: floor(size / crop_ratio).

        With crop_ratio 0.875 this equals the int(256 / 224 * size) of the FixRes code for every size.
        """
        return math.floor(self.size / self.crop_ratio + 1e-9)

    @property
    def is_cropped(self) -> bool:
        """Whether a part of the picture may be cut off: `squash` and `pad` show all of it, whatever the crop ratio."""
        return self.resize not in ("squash", "pad")

    @property
    def shown_side(self) -> int:
        """Pixels to which a side of the whole picture is resized."""
        return self.resize_size if self.is_cropped else self.size

    def at(self, size: int) -> Preprocess:
        """Return the same preprocessing at another size; the field of view stays the same."""
        return replace(self, size=size)

    def describe(self) -> str:
        """Return the one line every command prints: size, resize, crop and interpolation."""
        if not self.is_cropped:
            return f"{self.size} px, {self.resize}, {self.interpolation}"
        return f"{self.size} px, {self.resize} side to {self.resize_size}, centre crop, {self.interpolation}"


def mean_crop_side(crop_scale: tuple[float, float]) -> float:
    """Return F, the mean side of a random crop relative to the picture, for an area fraction uniform in `crop_scale`.

    F = 2/3 (s1^3 - s0^3) / (s1^2 - s0^2) with s = sqrt(area): the expectation in equation 5 of FixRes.
    """
    low, high = (math.sqrt(area) for area in crop_scale)
    if math.isclose(low, high):
        return high
    return 2 / 3 * (high**3 - low**3) / (high**2 - low**2)


def apparent_ratio(train: Preprocess, crop: str, crop_scale: tuple[float, float], test: Preprocess) -> float:
    """Return how large objects look at test time relative to training (1: the same; below 1: smaller).

    A random crop of side sigma shows objects 1 / sigma larger, hence F. The other crops keep the scale of a resize, so
    sigma is 1: `pad` resizes the shorter side to the size itself, `resize` as before a centre crop, `center` as in
    testing.
    """
    if crop == "random":
        return mean_crop_side(crop_scale) * test.shown_side / train.size
    sides = {"pad": train.size, "resize": train.resize_size}
    return test.shown_side / sides.get(crop, train.shown_side)


def simulated_crop_sides(
    aspect: float,
    crop_scale: tuple[float, float],
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3),
    num: int = 20_000,
) -> np.ndarray:
    """Return the sides of `num` random crops as they are really drawn, the roots of their shares of the picture's area.

    Their mean is below `mean_crop_side`: large crops of an unsuitable shape do not fit and are drawn again, ten times,
    before the largest centre crop is taken. `aspect` is the picture's width / height.
    """
    generator = np.random.default_rng(0)
    low, high = (math.log(bound) for bound in crop_aspect)
    # A crop with area share s and shape r is sqrt(s r / aspect) wide and sqrt(s aspect / r) high, of the picture's 1.
    sides = np.full(
        num, math.sqrt(min(aspect, crop_aspect[1]) / aspect) * math.sqrt(aspect / max(aspect, crop_aspect[0]))
    )
    todo = np.arange(num)
    for _ in range(10):
        share = generator.uniform(*crop_scale, len(todo))
        shape = np.exp(generator.uniform(low, high, len(todo)))
        fits = (share * shape <= aspect) & (share * aspect <= shape)
        sides[todo[fits]] = np.sqrt(share[fits])
        todo = todo[~fits]
    return sides


def seen_share(preprocess: Preprocess, aspect: float) -> float:
    """Return the share of a picture's area that the test-time crop shows; `aspect` is its width / height."""
    if not preprocess.is_cropped:
        return 1.0
    crop = preprocess.size / preprocess.resize_size
    if preprocess.resize == "height":
        return crop * min(1.0, crop / aspect)
    return crop * crop * min(aspect, 1 / aspect)


def simulated_ratio(
    train: Preprocess,
    crop_scale: tuple[float, float],
    crop_aspect: tuple[float, float],
    test: Preprocess,
    aspects: Sequence[float],
) -> float:
    """Return `apparent_ratio` of random crops as they are really drawn from pictures of these widths / heights.

    The crop is square once resized, so objects grow by train size / (sigma sqrt(W H)) in training, and by shown side /
    the side that is resized in testing: for a picture that is not square, the shorter is less than sqrt(W H), the
    longer of `pad` more, and the two sides of `squash` come to just that.
    """
    rounded, counts = np.unique(np.round(np.log(np.asarray(aspects, dtype=np.float64)), 2), return_counts=True)
    total = 0.0
    for log, count in zip(rounded.tolist(), counts.tolist(), strict=True):
        aspect = math.exp(log)
        shorter = math.sqrt(min(aspect, 1 / aspect))
        sides = {"height": 1 / math.sqrt(aspect), "shorter": shorter, "pad": 1 / shorter, "squash": 1.0}
        drawn = float(simulated_crop_sides(aspect, crop_scale, crop_aspect).mean())
        total += count * drawn / sides[test.resize]
    return total / len(aspects) * test.shown_side / train.size


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> tuple[int, ...]:
    """Return the places that nothing both cheaper and at least as accurate beats, cheapest first."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -accuracy[i]))
    front: list[int] = []
    for i in order:
        if not front or accuracy[i] > accuracy[front[-1]]:
            front.append(i)
    return tuple(front)


def exact_matching_size(train: Preprocess, crop: str, crop_scale: tuple[float, float]) -> float:
    """Return the test size in pixels at which objects look as large as in training."""
    return train.size / apparent_ratio(train, crop, crop_scale, train)


def matching_size(
    train: Preprocess,
    crop: str,
    crop_scale: tuple[float, float],
    multiple: int = 32,
    is_legal: Callable[[int], bool] = lambda _: True,
) -> int:
    """Return the test size, a legal multiple of `multiple`, at which objects look most nearly as large as in training.

    224 px and the default crop give 288, where the un-tuned ResNet-50 of the paper peaks. The train size, where objects
    look smaller, and anything below it is the answer only where the exact size is hardly larger, or nothing is legal.
    """
    exact = exact_matching_size(train, crop, crop_scale)
    least = train.size + 1 if exact > (1 + HARDLY_LARGER) * train.size else 1
    multiples = range(multiple, math.ceil(2 * max(exact, train.size)) + multiple, multiple)
    sizes = sorted((size for size in {*multiples, train.size} if size >= least), key=lambda size: abs(size - exact))
    return next((size for size in sizes if is_legal(size)), train.size)


def candidate_sizes(train_size: int, multiple: int = 32) -> tuple[int, ...]:
    """Return the sizes worth measuring for a network trained at `train_size`: it, and multiples up to twice it.

    Accuracy drops right after a multiple of the network's stride (paper, appendix on border effects), so only
    multiples are offered; at most seven, evenly spaced.
    """
    step = multiple * max(1, math.ceil(train_size / multiple / 6))
    first = (train_size // multiple + 1) * multiple
    return (train_size, *range(first, 2 * train_size + 1, step))


def one_error_rule(losses: np.ndarray, cost: Sequence[float]) -> tuple[int, int]:
    """Return the best place, and the cheapest that is worse than it by no more than one standard error.

    `losses` `[K, N]` are those of K choices on the same N pictures, which is what makes small splits usable.
    """
    means = losses.mean(axis=1)
    best = min(range(len(losses)), key=lambda i: (means[i], cost[i]))
    near = min((cost[i], means[i]) for i in range(len(losses)) if not is_worse(losses[i], losses[best]))[1]
    # What is cheaper still and no worse may be further from the best in errors, where the two differ in few pictures.
    return best, min((i for i in range(len(losses)) if means[i] <= near), key=lambda i: (cost[i], means[i]))


def is_worse(losses: np.ndarray, than: np.ndarray) -> bool:
    """Return whether the mean of losses `[N]` is higher by more than one standard error of the paired difference."""
    difference = losses.astype(np.float64) - than
    return bool(difference.mean() > difference.std() / math.sqrt(len(difference)))


def choose_size(sizes: Sequence[int], correct: np.ndarray, cost: Sequence[float], at_least: int = 0) -> tuple[int, str]:
    """Choose the cheapest size that is no worse than the best by more than one standard error; say why.

    `correct` is bool `[len(sizes), N]`, `cost` for instance GMACs. Sizes below `at_least` are left out, unless all are
    smaller. Before a fix this is the size at which objects look as large as in training: what is measured then
    underrates larger sizes, which suffer from activations the head has not seen; in the paper a fix moves the best up.
    """
    accuracy = 100 * correct.mean(axis=1)
    kept = [i for i in range(len(sizes)) if sizes[i] >= at_least] or list(range(len(sizes)))
    best, chosen = (kept[place] for place in one_error_rule(~correct[kept], [cost[i] for i in kept]))
    why = f"{accuracy[chosen]:.1f} % before the fix, " if at_least else f"{accuracy[chosen]:.1f} %, "
    if chosen == best:
        why += f"the best of {len(kept)} sizes"
        why += f" ({_listed(sizes[i] for i in kept)} px)" if len(kept) < len(sizes) else ""
    else:
        why += f"within one standard error of the best ({accuracy[best]:.1f} % at {sizes[best]} px) and cheaper"
    if at_least and sizes[chosen] >= at_least:
        why += f"; from {at_least} px on objects look as large as in training"
        left_out = _listed(size for size in sizes if size < at_least)
        why += f", which leaves out {left_out} px" if left_out else ""
    return sizes[chosen], why


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(str(size) for size in sorted(sizes))
