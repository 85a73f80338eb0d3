"""The combinations of settings that cannot work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from fixres.config.defaults import CACHED_NEEDS, LR_RULES, learning_rate_of, named_stages
from fixres.config.recipe import Recipe
from fixres.config.registry import LOSSES, solved_by
from fixres.config.stage import SETTINGS, Stage

MANY_TIMES = 20
"""Up to here a whole number of samples was probably meant as a multiple of the split."""


Problem = tuple[str, str]
"""A combination of settings that cannot work: the key to change, and why."""


def problems(recipe: Recipe, require_data: bool = False) -> list[Problem]:
    """Return every impossible combination in `recipe`, in the order of its keys; empty when it can run.

    `require_data` makes an empty `data.uri` one of them.
    """
    found = list(_first_problems(recipe, require_data))
    for name, stage in named_stages(recipe):
        of_stage = _stage_problems(name, stage, recipe) if stage.enabled else ()
        found.extend((f"{name}.{key}" if key in SETTINGS else key, text) for key, text in of_stage)
    return [*found, *_whole_problems(recipe)]


def _first_problems(recipe: Recipe, require_data: bool) -> Iterator[Problem]:
    if require_data and not recipe.data.uri:
        yield "data.uri", "no data; give a folder of pictures: --data.uri DIR, or data: {uri: DIR} in the recipe"
    if recipe.model.std != "model" and min(recipe.model.std) <= 0:
        yield "model.std", "pixels are divided by it, so every value must be above 0"
    for key, statistic in (("model.mean", recipe.model.mean), ("model.std", recipe.model.std)):
        if statistic != "model" and max(statistic) > 1:
            yield key, "pixels are in [0, 1] here; divide values meant for 0 to 255 by 255"
    stages = list(named_stages(recipe))
    name, first = next(((name, stage) for name, stage in stages if stage.enabled), (stages[0][0], None))
    if first is not None and first.norm_statistics == "frozen" and recipe.model.weights == "none":
        yield (
            f"{name}.norm_statistics",
            "frozen would keep mean 0 and variance 1, which a random network starts with; give model.weights, or batch",
        )
    if first is None:
        yield f"{name}.enabled", "no stage is enabled, so there is nothing to run"
    elif first.moves != "all" and recipe.model.weights == "none":
        yield (
            f"{name}.moves",
            f"'{first.moves}' would leave most of a random network as it is;"
            " give model.weights (for example pretrained) or moves all",
        )


def _stage_problems(name: str, stage: Stage, recipe: Recipe) -> Iterable[Problem]:
    """Find what is wrong with one stage; a key without a point is one of its own."""
    is_fix = name == "fix" or (name not in ("train", "stages.0") and stage.moves != "all")
    if stage.size == "auto" and not is_fix:
        yield "size", "auto is for a fix stage; give a number of pixels"
    low, high = stage.crop_scale
    if low == 0 or low > high:
        yield "crop_scale", f"[{low:g}, {high:g}] is no range of areas; use 0 < low <= high <= 1"
    for key, what in (("crop_aspect", "aspects"), ("rotation", "degrees")):
        low, high = getattr(stage, key)
        if low > high:
            yield key, f"[{low:g}, {high:g}] is no range of {what}; the first must not be larger"
    yield from _sampling_problems(name, stage, recipe)
    yield from _rate_problems(name, stage)
    yield from _schedule_problems(stage)
    yield from _size_problems(name, stage)
    if stage.freeze and stage.moves != "all":
        yield "freeze", f"is for moves all; with moves {stage.moves} everything else stays already"
    if not is_fix and (stage.head_sizes or stage.mix != 1):
        yield "head_sizes" if stage.head_sizes else "mix", f"is of a fix; {name} trains the whole network"
    if stage.mix_also and stage.mix != "auto":
        yield "mix_also", f"decides on a mix, and {name}.mix is {stage.mix:g}; use auto"
    if stage.head_sizes and stage.head != "keep":
        yield "head_sizes", f"starts every size from the head as it comes, and {name}.head is {stage.head}; use keep"
    if stage.patience and recipe.evaluation.keep == "last":
        yield "patience", "stops at the best result, which evaluation.keep last would not ship; use keep best"
    yield from _solver_problems(stage)
    if stage.warmup_epochs >= stage.epochs:
        yield (
            "warmup_epochs",
            f"a warm-up of {stage.warmup_epochs:g} epochs leaves nothing of the stage's {stage.epochs};"
            f" use less than {name}.epochs",
        )
    if stage.batch_size % 2 and (stage.mixup > 0 or stage.cutmix > 0):
        mixing = "mixup" if stage.mixup > 0 else "cutmix"
        yield "batch_size", f"{mixing} pairs pictures and needs an even batch, not {stage.batch_size}"


def _sampling_problems(name: str, stage: Stage, recipe: Recipe) -> Iterable[Problem]:
    samples = stage.epoch_samples
    if isinstance(samples, int) and samples < stage.batch_size:
        hint = f"; a multiple of the split has a point: {samples}.0" if samples <= MANY_TIMES else ""
        yield "epoch_samples", f"{samples} pictures do not fill one batch of {stage.batch_size}{hint}"
    if stage.sampler == "balanced" and recipe.data.class_weights == "auto":
        yield (
            "data.class_weights",
            f"auto counts rarity twice: {name}.sampler balanced shows every class equally often already;"
            " use class_weights none, or sampler shuffle",
        )
    if stage.sampler == "compat" and not 0 <= recipe.seed < 2**32:
        yield "seed", f"sampler compat needs a seed that numpy takes, 0 to 2^32 - 1, not {recipe.seed}"


def _rate_problems(name: str, stage: Stage) -> Iterable[Problem]:
    rule, base = stage.lr_rule, stage.base_lr
    if base > 0 and rule == "none":
        yield "lr_rule", f"none does not use base_lr {base:g}; use linear256 or fixres, or leave base_lr out"
    elif base == 0 and rule != "none":
        yield "lr_rule", f"{rule} multiplies base_lr, which is not given; give it in place of lr"
    elif rule != "none":
        by_rule = learning_rate_of(base, rule, stage.batch_size)
        if not math.isclose(stage.lr, by_rule, rel_tol=1e-9):
            yield (
                "lr",
                f"lr {stage.lr:g} and base_lr {base:g} are both given and differ: {rule} makes"
                f" {base:g} x {stage.batch_size} / {LR_RULES[rule]} = {by_rule:g}; leave one of them out",
            )
    if stage.schedule in ("cosine", "restarts") and stage.min_lr > stage.lr:
        yield "min_lr", f"{stage.min_lr:g} is above {name}.lr {stage.lr:g}, so the cosine would rise"


def _schedule_problems(stage: Stage) -> Iterable[Problem]:
    points = stage.lr_points
    if stage.schedule != "points":
        return
    if not points:
        yield "lr_points", "schedule points needs [epoch, factor] pairs, such as [[0, 0.1], [5, 1]]"
        return
    if any(first[0] >= second[0] for first, second in pairwise(points)):
        yield "lr_points", "the epochs of the points must rise"
    elif points[-1][0] > stage.epochs:
        yield "lr_points", f"the last point is at epoch {points[-1][0]:g}, the stage ends at {stage.epochs}"
    if max(factor for _, factor in points) == 0:
        yield "lr_points", "every factor is 0, so nothing would be learned"
    if stage.warmup_epochs > 0:
        yield "warmup_epochs", "schedule points holds its own warm-up; use 0, or leave it out"


def _size_problems(name: str, stage: Stage) -> Iterator[Problem]:
    sizes, epochs = stage.sizes, stage.size_epochs
    if not sizes:
        return
    num = f"{len(sizes)} sizes"
    if stage.size == "auto":
        yield "sizes", f"a stage with sizes needs a number of pixels as {name}.size, not auto"
    if stage.size_schedule == "progressive" and len(sizes) != 2:
        yield "sizes", f"progressive goes from a first to a last size; give two, not {len(sizes)}"
    if stage.size_schedule == "step" and epochs and (len(epochs) != len(sizes) or epochs[0] != 0):
        yield "size_epochs", f"step needs one epoch for each of {num}, the first 0"
    elif stage.size_schedule == "progressive" and epochs and len(epochs) != 2:
        yield "size_epochs", f"progressive needs [start, end], not {len(epochs)} epochs"
    elif any(first >= second for first, second in pairwise(epochs)):
        yield "size_epochs", "the epochs must rise"
    elif epochs and epochs[-1] >= stage.epochs:
        yield "size_epochs", f"epoch {epochs[-1]:g} never comes: the stage has {stage.epochs}"
    elif stage.size_schedule == "step" and len(sizes) > stage.epochs:
        yield "sizes", f"{num} do not fit into {stage.epochs} epochs"
    weights = stage.size_weights
    if weights and (len(weights) != len(sizes) or sum(weights) == 0):
        yield "size_weights", f"random needs one weight for each of {num}, not all of them 0"
    batches = stage.batch_sizes
    if batches and (stage.size_schedule == "progressive" or len(batches) != len(sizes)):
        yield "batch_sizes", f"give one for each of {num}; progressive has batch_rule area instead"
    if any(batch % 2 for batch in batches) and (stage.mixup > 0 or stage.cutmix > 0):
        yield "batch_sizes", "mixup and cutmix pair pictures and need even batches"


def _solver_problems(stage: Stage) -> Iterable[Problem]:
    if stage.solver == "cached" and stage.moves not in solved_by("cached"):
        allowed = ", ".join(solved_by("cached"))
        yield "solver", f"cached moves {allowed}, not '{stage.moves}'; use solver sgd"
    elif stage.solver == "cached" and cached_conflict(stage):
        yield "solver", f"{cached_conflict(stage)}; use solver sgd"
    if stage.decay and stage.solver == "sgd" and stage.head != "solved":
        yield "decay", f"{stage.decay:g} has no effect: nothing is solved; weight_decay is what sgd has"
    if stage.solver == "sgd" and stage.moves not in solved_by("sgd"):
        yield "solver", f"sgd trains parameters, and moves '{stage.moves}' has none; use solver cached"


def _whole_problems(recipe: Recipe) -> Iterable[Problem]:
    yield from _unused(recipe)
    if recipe.runtime.device == "cpu" and recipe.runtime.precision == "fp16":
        yield "runtime.precision", "fp16 does not train on a CPU; use auto, fp32 or bf16"
    asked = recipe.evaluation
    if recipe.data.train_on == "all" and (recipe.chooses or asked.ship == "best"):
        yield (
            "data.train_on",
            "all leaves no pictures to choose on: give evaluation.keep last and ship last, every size as a number, and "
            "the decay of what is solved; fixres train PHOTOS --final does so",
        )
    if asked.probe_sizes and asked.ship != "best":
        yield "evaluation.probe_sizes", "has no effect: evaluation.ship is last, and only best takes it"
    fixes = [stage for stage in recipe.stages[1:] if stage.enabled and stage.moves != "all"]
    if asked.ship == "best" and len(fixes) > 1:
        yield "evaluation.ship", f"best compares one fix with what came before; this recipe has {len(fixes)}; use last"
    if asked.resize in ("squash", "pad") and asked.crop_ratio != type(asked).model_fields["crop_ratio"].default:
        text = f"{asked.crop_ratio:g} has no effect: resize {asked.resize} does not crop"
        yield "evaluation.crop_ratio", f"{text}; leave it out, or use resize shorter"


def cached_conflict(stage: Stage) -> str:
    """Return what the stage asks for that the cached solver does not do; empty where there is nothing."""
    if stage.head == "solved":
        return "the cached solver solves the head anyway, so that head solved means a stage by sgd"
    asked = [key for key, only in CACHED_NEEDS.items() if getattr(stage, key) != only]
    if not asked or stage.moves not in solved_by("sgd"):
        return ""
    value = getattr(stage, asked[0])
    return f"the cached solver has no {asked[0]} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _unused(recipe: Recipe) -> Iterable[Problem]:
    """Find settings that no stage uses, though one of them has them otherwise than by default."""
    enabled = [(name, stage) for name, stage in named_stages(recipe) if stage.enabled]
    fields = Stage.model_fields.items()
    changed = {name: [key for key, field in fields if getattr(stage, key) != field.default] for name, stage in enabled}
    for key in SETTINGS:
        first = next(((name, stage) for name, stage in enabled if key in changed[name]), None)
        for other, values in _needs(key).items():
            if first and values and not any(getattr(stage, other) in values for _, stage in enabled):
                text = f"has no effect: {first[0]}.{other} is {getattr(first[1], other)}, and only"
                yield f"{first[0]}.{key}", f"{text} {' and '.join(values)} takes it"
    for name, stage in enabled:
        of_sizes = [key for key in changed[name] if "sizes" in SETTINGS[key].needs]
        if of_sizes and not stage.sizes:
            yield f"{name}.{of_sizes[0]}", f"has no effect without {name}.sizes"


def _needs(key: str) -> Mapping[str, tuple[str, ...]]:
    losses = tuple(name for name, loss in LOSSES.items() if key in loss.settings)
    return {"loss": losses} if losses else SETTINGS[key].needs
