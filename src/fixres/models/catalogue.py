"""What is known about an architecture before it is trained: cost, sizes, head, last norms, published weights.

Networks are built without values (PyTorch's meta device), so that the largest costs no more than the smallest.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import timm
from torch import nn

from fixres.errors import UserError, did_you_mean
from fixres.models.anatomy import head_names, last_norms
from fixres.models.build import build_model, build_shape, default_size
from fixres.models.moves import make_plan
from fixres.models.names import ALIASES, SYSTEM_OF, architecture_names, bare, canonical
from fixres.models.pretrained import published_classes, published_preprocess
from fixres.models.released import RELEASED
from fixres.models.sizes import MAX_SIZE, bound_size, gmacs, needs_values, refusal

MAX_REAL_PARAMETERS = 1_500_000_000
"""Networks beyond this are not built with values, which would take 6 GB and more."""

_STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 128, 256)
_SMALL = 32
"""Side in pixels of the smallest pictures people train on; from here down a network takes `any`."""


@dataclass(frozen=True)
class Architecture:
    """One architecture, with as many classes as its published weights have (1,000 where nothing is published)."""

    name: str
    """timm's name, with the tag where one was given."""
    aliases: tuple[str, ...]
    """Other systems' names that mean it."""
    num_parameters: int
    gmacs: float | None
    """Billions of multiply-adds for one picture at `test_size`; None where it cannot run."""
    train_size: int
    """Side in pixels stated for its training."""
    test_size: int
    """Side in pixels stated for its test."""
    sizes: str
    """The sizes it takes: a rule for people."""
    head: tuple[str, ...]
    """Classifier layers; empty where there is none."""
    last_norms: tuple[tuple[str, str], ...]
    """Name and type of the norms on whose output no other norm depends."""
    moves: str
    """What `moves: auto` means for it; empty where it cannot be trained."""
    reason: str
    """Why `moves` is what it is."""
    weights: tuple[str, ...]
    """Where published weights are; empty where there are none."""


@dataclass(frozen=True)
class Alias:
    """Another system's name of an architecture."""

    name: str
    means: str
    system: str


def describe_architecture(name: str) -> Architecture:
    """Return what is known about an architecture, found by building it.

    Args:
        name: anything `canonical` understands.

    Raises:
        UserError: unknown name, or the network needs a package that is not installed.
    """
    name = canonical(name)
    model = _build(name, published_classes(name) or 1000)
    size = default_size(model)
    test_size = published_preprocess(model).size
    why_not = refusal(model, size)
    norms = last_norms(model, size) if why_not is None else ()
    head, moves, reason = _end(model, size, why_not, norms)
    return Architecture(
        name=name,
        aliases=tuple(alias.name for alias in aliases() if alias.means in (name, canonical(bare(name)))),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        gmacs=gmacs(model, test_size) if refusal(model, test_size) is None else None,
        train_size=size,
        test_size=test_size,
        sizes=size_rule(model, size),
        head=head,
        last_norms=tuple((norm, type(model.get_submodule(norm)).__name__) for norm in norms),
        moves=moves,
        reason=reason,
        weights=published_weights(name),
    )


def _build(name: str, num_classes: int) -> nn.Module:
    """Return the network without values; with values where it cannot do without and is small enough.

    Raises:
        UserError: as `build`, or it needs values and is too large.
    """
    try:
        model = build_shape(name, num_classes)
    except ImportError as error:
        raise UserError(f"'{name}' needs the package '{error.name}', which is not installed") from error
    if needs_values(model):
        total = sum(parameter.numel() for parameter in model.parameters())
        if total > MAX_REAL_PARAMETERS:
            raise UserError(f"'{name}' is too large to be looked at: {total / 1e9:.1f} billion parameters")
        model = build_model(name, num_classes)
    return model


def _end(model: nn.Module, size: int, why_not: str | None, norms: tuple[str, ...]) -> tuple[tuple[str, ...], str, str]:
    """Return the classifier layers, what `moves: auto` is, and why."""
    try:
        head = head_names(model)
    except UserError:
        head = ()
    if why_not is not None:
        return head, "", f"it cannot be trained: {why_not}"
    if not head:
        return head, "all", "it has no classifier layer that could move alone"
    moves = make_plan(model, "auto", size).moves
    if not norms:
        return head, moves, "it has no norm"
    types = sorted({type(model.get_submodule(norm)).__name__ for norm in norms})
    keeps = "keep running statistics" if moves == "head+stats" else "keep no running statistics"
    if len(norms) == 1:
        return head, moves, f"its last norm is a {types[0]}, which {keeps.replace('keep', 'keeps', 1)}"
    return head, moves, f"its {len(norms)} last norms ({', '.join(types)}) {keeps}"


def size_rule(model: nn.Module, size: int) -> str:
    """Return in words which sizes the network takes, found by trying sizes around `size`."""

    @cache
    def works(at: int) -> bool:
        return 1 <= at <= MAX_SIZE and refusal(model, at) is None

    if not works(size):
        return f"none ({refusal(model, size)})"
    step = next((step for step in _STEPS if _is_regular(works, size, step)), None)
    if step is None:
        low = _smallest(works, 1, size) if works(size - 1) else size
        high = next(at for at in range(size + 1, MAX_SIZE + 2) if not works(at)) - 1
        span = f"{size} only" if low == high else f"{low} to {high}"
        return f"{span} ({refusal(model, 2 * size)})"
    smallest = _smallest(works, step, -(-size // step) * step)
    rule = "any" if step == 1 else f"multiples of {step}"
    rule += f" from {smallest}" if smallest > max(step, _SMALL) else ""
    rule += f", and {size}" if size % step else ""
    return rule + (", positions resized" if bound_size(model) is not None else "")


def _is_regular(works: Callable[[int], bool], size: int, step: int) -> bool:
    """Return whether five multiples of `step` from `size` on all work, and so does about twice the size."""
    first = -(-size // step)
    return all(works(number * step) for number in (*range(first, first + 5), 2 * first))


def _smallest(works: Callable[[int], bool], step: int, high: int) -> int:
    """Return the smallest multiple of `step` from 32 on that works; those that work are taken to be one range."""
    low = -(-_SMALL // step) * step
    if low >= high or works(low):
        return min(low, high)
    while high - low > step:
        middle = (low + high) // 2 // step * step
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def published_weights(name: str) -> tuple[str, ...]:
    """Return where published weights of `name` are: on the hub, at a host, under names for `fixres:`."""
    found = []
    cfg = timm.models.get_pretrained_cfg(canonical(name))
    if cfg is not None and cfg.hf_hub_id:
        found.append(f"hf-hub:{cfg.hf_hub_id}")
    elif cfg is not None and cfg.url:
        found.append(f"url {urlsplit(cfg.url).hostname}")
    released = (entry for entry in RELEASED.values() if entry.content == "weights")
    found += [f"fixres:{entry.name}" for entry in released if entry.architecture == bare(name)]
    return tuple(found)


@cache
def aliases() -> tuple[Alias, ...]:
    """Return every name of another system, what it means, and which system has it."""
    names = list(ALIASES)
    for width in (*(f"B{i}" for i in range(9)), "L2"):
        names += [f"EfficientNet-{width}{variant}" for variant in ("", "-AdvProp", "-NoisyStudent")]
    found = []
    for name in names:
        try:
            found.append(Alias(name, canonical(name), SYSTEM_OF.get(name, "FixEfficientNet")))
        except UserError:
            continue  # not every EfficientNet exists in every variant
    return tuple(found)


def search_architectures(pattern: str) -> list[str]:
    """Return the architectures a pattern means, sorted.

    In this order: the very name; an alias; a pattern with * ? or [], on names with tags when it has a dot; a part of a
    name. Upper and lower case are the same.

    Raises:
        UserError: nothing matches.
    """
    known = architecture_names()
    wanted = pattern.strip()
    if wanted in known:
        return [wanted]
    is_glob = re.search(r"[*?\[]", wanted) is not None
    if not is_glob:
        try:
            return [canonical(wanted)]
        except UserError:
            if wanted.lower() in known:
                return [wanted.lower()]
    names = timm.list_pretrained() if "." in wanted else known
    glob = wanted.lower() if is_glob else f"*{wanted.lower()}*"
    found = sorted((name for name in names if fnmatch.fnmatchcase(name.lower(), glob)), key=_by_number)
    if not found or not wanted:
        hint = did_you_mean(wanted, [*known, *(alias.name for alias in aliases())])
        raise UserError(
            f"no architecture matches '{pattern}'{hint}\n"
            f"  give a part of a name or a pattern such as 'resnet*'; 'fixres models' alone lists other names"
        )
    return found


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts resnet18 before resnet101."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]
