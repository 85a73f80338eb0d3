"""Filling in what a recipe file leaves out, and the combinations that cannot work.

A stage takes what it does not say itself from the sections `optim`, `schedule`, `ema` and `augment`. `TRAIN` and `FIX`
say from where; everything else here follows from these two tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fixres.config import Recipe, Section, Stage

FIX_LR_RATIO = 1 / 20
ADAMW_LR = 0.001
MANY_TIMES = 20
"""Up to here a whole number of samples was probably meant as a multiple of the split."""


@dataclass(frozen=True)
class From:
    """A default taken from another key of the recipe, times `ratio`."""

    key: str
    ratio: float = 1.0


TRAIN: dict[str, Any] = {
    "enabled": True,
    "size": 224,
    "epochs": 30,
    "batch_size": 64,
    "moves": "all",
    "crop": From("augment.crop"),
    "crop_scale": From("augment.crop_scale"),
    "crop_aspect": From("augment.crop_aspect"),
    "interpolation": From("augment.interpolation"),
    "augment": From("augment.policy"),
    "vertical_flip": From("augment.vertical_flip"),
    "rotation": From("augment.rotation"),
    "erasing": From("augment.erasing"),
    "randaugment_ops": From("augment.randaugment_ops"),
    "randaugment_magnitude": From("augment.randaugment_magnitude"),
    "sampler": From("data.sampler"),
    "repeats": 1,
    "epoch_samples": 1.0,
    "lr": From("optim.lr"),
    "schedule": From("schedule.name"),
    "warmup_epochs": From("schedule.warmup_epochs"),
    "weight_decay": From("optim.weight_decay"),
    "label_smoothing": From("augment.label_smoothing"),
    "mixup": From("augment.mixup"),
    "cutmix": From("augment.cutmix"),
    "ema": From("ema.enabled"),
    "solver": "sgd",
    "start_from": "ema",
}

FIX: dict[str, Any] = {
    **TRAIN,
    "size": "auto",
    "epochs": 10,
    "batch_size": From("train.batch_size"),
    "moves": "auto",
    "crop": "center",
    "interpolation": "test",
    "augment": "v1",
    "vertical_flip": 0.0,
    "rotation": (0.0, 0.0),
    "erasing": 0.0,
    "lr": From("optim.lr", FIX_LR_RATIO),
    "warmup_epochs": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema": False,
}


class Problem(NamedTuple):
    """A combination of settings that cannot work: the key to change, and why."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the recipe mapping `raw` in which every stage is filled in.

    Values of a wrong type are left for the validation to report. With `stages`, `train` and `fix` become the first
    and the last of them. `fix.enabled` is true when any other key of `fix` is given.
    """
    filled = {key: value for key, value in raw.items() if value is not None or key not in Recipe.model_fields}
    optim = filled.get("optim")
    if isinstance(optim, Mapping) and optim.get("name") == "adamw":
        filled["optim"] = {"lr": ADAMW_LR, **optim}
    stages = filled.get("stages")
    if isinstance(stages, list) and stages:
        filled["stages"] = _complete_list(stages, filled)
        filled["train"], filled["fix"] = filled["stages"][0], filled["stages"][-1]
        return filled
    train = _complete_stage(filled.get("train", {}), TRAIN, filled, {})
    fix = filled.get("fix", {})
    if isinstance(fix, Mapping):
        fix = _complete_stage({"enabled": bool(fix), **fix}, FIX, filled, train)
    return {**filled, "train": train, "fix": fix}


def stage_defaults(index: int, stage: Any) -> dict[str, Any]:
    """Return the table that fills entry `index` of `stages`: a later stage that moves only a part is a fix."""
    moves = stage.get("moves", "all") if isinstance(stage, Mapping) else "all"
    return TRAIN if index == 0 or moves == "all" else FIX


def source_key(key: str, stage: Mapping[str, Any] | None = None) -> str:
    """Return the top-level key that fills the stage key `key` (`train.lr` -> `optim.lr`), or `key` itself."""
    head, _, name = key.rpartition(".")
    if head == "train" or head == "fix" or head.startswith("stages."):
        index = 0 if head == "train" else 1 if head == "fix" else int(head.rpartition(".")[2])
        table = FIX if head == "fix" else stage_defaults(index, stage)
        default = table.get(name)
        if isinstance(default, From):
            return default.key
    return key


def problems(recipe: Recipe, require_data: bool = False) -> list[Problem]:
    """Return every impossible combination in `recipe`, in the order of its keys; empty when it can run.

    `require_data` makes an empty `data.uri` one of them.
    """
    found: list[Problem] = []
    if require_data and not recipe.data.uri:
        found.append(
            Problem("data.uri", "no data; give a folder of pictures: --data.uri DIR, or data: {uri: DIR} in the recipe")
        )
    if recipe.model.std != "model" and min(recipe.model.std) <= 0:
        found.append(Problem("model.std", "pixels are divided by it, so every value must be above 0"))
    for key, statistic in (("model.mean", recipe.model.mean), ("model.std", recipe.model.std)):
        if statistic != "model" and max(statistic) > 1:
            found.append(Problem(key, "pixels are in [0, 1] here; divide values meant for 0 to 255 by 255"))
    stages = list(named_stages(recipe))
    if not any(stage.enabled for _, stage in stages):
        found.append(Problem(f"{stages[0][0]}.enabled", "no stage is enabled, so there is nothing to run"))
    first = next(((name, stage) for name, stage in stages if stage.enabled), None)
    if first is not None and first[1].moves != "all" and recipe.model.weights == "none":
        found.append(
            Problem(
                f"{first[0]}.moves",
                f"'{first[1].moves}' would leave most of a random network as it is;"
                " give model.weights (for example pretrained) or moves all",
            )
        )
    for name, stage in stages:
        if stage.enabled:
            found.extend(_stage_problems(name, stage, recipe))
    found.extend(_whole_problems(recipe))
    return found


def named_stages(recipe: Recipe) -> Iterator[tuple[str, Stage]]:
    """Yield every stage of `recipe`, enabled or not, under the name its keys have: `train`, `fix` or `stages.N`."""
    if recipe.stages:
        yield from ((f"stages.{index}", stage) for index, stage in enumerate(recipe.stages))
    else:
        yield "train", recipe.train
        yield "fix", recipe.fix


def _stage_problems(name: str, stage: Stage, recipe: Recipe) -> Iterable[Problem]:
    is_fix = name == "fix" or (name not in ("train", "stages.0") and stage.moves != "all")
    if stage.size == "auto" and not is_fix:
        yield Problem(f"{name}.size", "auto is for a fix stage; give a number of pixels")
    low, high = stage.crop_scale
    if low == 0 or low > high:
        yield Problem(f"{name}.crop_scale", f"[{low:g}, {high:g}] is no range of areas; use 0 < low <= high <= 1")
    for key, what in (("crop_aspect", "aspects"), ("rotation", "degrees")):
        low, high = getattr(stage, key)
        if low > high:
            yield Problem(f"{name}.{key}", f"[{low:g}, {high:g}] is no range of {what}; the first must not be larger")
    yield from _sampling_problems(name, stage, recipe)
    if stage.warmup_epochs >= stage.epochs:
        yield Problem(
            f"{name}.warmup_epochs",
            f"a warm-up of {stage.warmup_epochs:g} epochs leaves nothing of the stage's {stage.epochs};"
            f" use less than {name}.epochs",
        )
    if stage.batch_size % 2 and (stage.mixup > 0 or stage.cutmix > 0):
        mixing = "mixup" if stage.mixup > 0 else "cutmix"
        yield Problem(f"{name}.batch_size", f"{mixing} pairs pictures and needs an even batch, not {stage.batch_size}")
    if stage.schedule == "cosine" and recipe.schedule.min_lr > stage.lr:
        yield Problem(
            "schedule.min_lr", f"{recipe.schedule.min_lr:g} is above {name}.lr {stage.lr:g}, so the cosine would rise"
        )


def _sampling_problems(name: str, stage: Stage, recipe: Recipe) -> Iterable[Problem]:
    samples = stage.epoch_samples
    if isinstance(samples, int) and samples < stage.batch_size:
        hint = f"; a multiple of the split has a point: {samples}.0" if samples <= MANY_TIMES else ""
        yield Problem(f"{name}.epoch_samples", f"{samples} pictures do not fill one batch of {stage.batch_size}{hint}")
    if stage.sampler == "balanced" and recipe.data.class_weights == "auto":
        yield Problem(
            "data.class_weights",
            f"auto counts rarity twice: {name}.sampler balanced shows every class equally often already;"
            " use class_weights none, or sampler shuffle",
        )
    if stage.sampler == "compat" and not 0 <= recipe.seed < 2**32:
        yield Problem("seed", f"sampler compat needs a seed that numpy takes, 0 to 2^32 - 1, not {recipe.seed}")


def _whole_problems(recipe: Recipe) -> Iterable[Problem]:
    if recipe.runtime.device == "cpu" and recipe.runtime.precision == "fp16":
        yield Problem("runtime.precision", "fp16 does not train on a CPU; use auto, fp32 or bf16")
    default = type(recipe.evaluation).model_fields["crop_ratio"].default
    if recipe.evaluation.resize in ("squash", "pad") and recipe.evaluation.crop_ratio != default:
        yield Problem(
            "evaluation.crop_ratio",
            f"{recipe.evaluation.crop_ratio:g} has no effect: resize {recipe.evaluation.resize} does not crop;"
            " leave it out, or use resize shorter",
        )


def _complete_list(stages: list[Any], raw: Mapping[str, Any]) -> list[Any]:
    first = _complete_stage(stages[0], TRAIN, raw, {})
    rest = [_complete_stage(stage, stage_defaults(i, stage), raw, first) for i, stage in enumerate(stages[1:], 1)]
    return [first, *rest]


def _complete_stage(stage: Any, table: Mapping[str, Any], raw: Mapping[str, Any], train: Any) -> Any:
    if stage is None:
        stage = {}
    if not isinstance(stage, Mapping):
        return stage
    filled = {name: _default(default, raw, train) for name, default in table.items()}
    filled.update(stage)
    if "warmup_epochs" not in stage and not _is_given(raw, "schedule.warmup_epochs"):
        # One epoch is a sensible warm-up only for stages that are longer than two.
        epochs = filled["epochs"]
        if isinstance(epochs, int):
            filled["warmup_epochs"] = min(filled["warmup_epochs"], epochs / 2)
    return filled


def _default(default: Any, raw: Mapping[str, Any], train: Any) -> Any:
    if not isinstance(default, From):
        return default
    section, name = default.key.split(".")
    if section == "train":
        return train.get(name, TRAIN[name]) if isinstance(train, Mapping) else TRAIN[name]
    value = raw[section][name] if _is_given(raw, default.key) else _section_default(section, name)
    optim = raw.get("optim")
    if isinstance(optim, Mapping) and optim.get("name") == "adamw":
        # The ratio is that of SGD in FixRes; the steps of Adam do not shrink with the gradients of a trained network.
        return value
    if default.ratio != 1 and isinstance(value, int | float):
        return float(f"{value * default.ratio:.10g}")
    return value


def _section_default(section: str, name: str) -> Any:
    defaults: Section = Recipe.model_fields[section].default
    value = getattr(defaults, name)
    return list(value) if isinstance(value, tuple) else value


def _is_given(raw: Mapping[str, Any], key: str) -> bool:
    section, name = key.split(".")
    values = raw.get(section)
    return isinstance(values, Mapping) and name in values
