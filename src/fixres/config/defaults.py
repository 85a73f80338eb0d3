"""Filling in what a recipe file leaves out.

A stage takes what it does not say itself from the sections `optim`, `schedule`, `ema` and `augment`. The fields of
`Stage` say from where, `TRAIN` and `FIX` are that as tables; everything else here follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fixres.config.recipe import Recipe
from fixres.config.registry import solved_by
from fixres.config.stage import SETTINGS, From, Stage
from fixres.config.yaml_text import is_given, value_at

OPTIMIZERS: dict[str, dict[str, float]] = {
    "sgd": {},
    "nesterov": {},
    "adamw": {"lr": 0.001},
    "lamb": {"lr": 0.005, "eps": 1e-6},
    "lion": {"lr": 0.0001, "beta2": 0.99},
    "muon": {"lr": 0.001, "momentum": 0.95, "beta2": 0.95, "eps": 1e-7},
}
"""Defaults of `optim` that go with an optimizer."""
LR_RULES = {"linear256": 256, "fixres": 64}
"""The batch at which the learning rate is base_lr. Goyal et al. 2017; FixRes: 8 x base_lr x batch / 512."""


TRAIN: dict[str, Any] = {
    name: From(setting.key) if setting.key else Stage.model_fields[name].default for name, setting in SETTINGS.items()
}
"""Where a training stage takes what it does not say itself."""
FIX = {name: default if SETTINGS[name].fix is None else SETTINGS[name].fix for name, default in TRAIN.items()}
"""Where a fix takes it."""
CACHED_KEYS = {name for name, setting in SETTINGS.items() if setting.is_cached}
"""What the cached solver reads of a stage. A fix that says more, such as its epochs, is solved by sgd."""
CACHED_NEEDS: dict[str, Any] = {"loss": "ce", "teacher": "", "sizes": (), "stop_step": 0}
"""What a stage must not say otherwise for the cached solver: it would solve another problem."""
_WITHOUT_FLIP = ("none", "v1", "trivial")
"""Training policies without a mirror image, which a fix must then not show either."""


def complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the recipe mapping `raw` in which every stage is filled in.

    Values of a wrong type are left for the validation to report. With `stages`, `train` and `fix` become the first
    and the last of them. `fix.enabled` is true when any other key of `fix` is given.
    """
    filled = {key: value for key, value in raw.items() if value is not None or key not in Recipe.model_fields}
    optim = filled.get("optim")
    if isinstance(optim, Mapping):
        filled["optim"] = {**_optimizer_defaults(optim), **optim}
    stages = filled.get("stages")
    if isinstance(stages, list) and stages:
        first = _complete_stage(stages[0], TRAIN, filled, {})
        rest = [_complete_stage(one, stage_defaults(i, one), filled, first) for i, one in enumerate(stages[1:], 1)]
        filled["stages"] = [first, *rest]
        filled["train"], filled["fix"] = filled["stages"][0], filled["stages"][-1]
    else:
        filled["train"] = _complete_stage(filled.get("train", {}), TRAIN, filled, {})
        filled["fix"] = fix = filled.get("fix", {})
        if isinstance(fix, Mapping):
            filled["fix"] = _complete_stage({"enabled": bool(fix), **fix}, FIX, filled, filled["train"])
    if isinstance(optim, Mapping) and _is_number(optim.get("base_lr")):
        filled["optim"] = {**filled["optim"], **_lr_by_rule(optim, filled["train"])}
    return filled


def _optimizer_defaults(optim: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the defaults of the optimizer that is named, without its lr where base_lr is given."""
    name = optim.get("name")
    defaults = OPTIMIZERS.get(name, {}) if isinstance(name, str) else {}
    return {key: value for key, value in defaults.items() if key != "lr" or not optim.get("base_lr")}


def learning_rate_of(base_lr: float, rule: str, batch_size: int) -> float:
    """Return the learning rate of a batch by `rule`, to ten digits so that 0.1 x 512 / 256 is written 0.2."""
    return float(f"{base_lr * batch_size / LR_RULES[rule]:.10g}")


def _lr_by_rule(settings: Mapping[str, Any], first: Any) -> dict[str, Any]:
    """Return lr and lr_rule of `optim`, a mapping with a base_lr, at the batch of the first stage."""
    rule = settings.get("lr_rule", "linear256")
    batch = value_at(first, "batch_size")
    found = {"lr_rule": rule, **settings}
    if settings["base_lr"] > 0 and _is_rule(rule) and isinstance(batch, int):
        found = {"lr": learning_rate_of(settings["base_lr"], rule, batch), **found}
    return {key: found[key] for key in ("lr", "lr_rule") if key in found}


def _is_rule(rule: Any) -> bool:
    return isinstance(rule, str) and rule in LR_RULES


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stage_defaults(index: int, stage: Any) -> dict[str, Any]:
    """Return the table that fills entry `index` of `stages`: a later stage that moves only a part is a fix."""
    return TRAIN if index == 0 or value_at(stage, "moves", "all") == "all" else FIX


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


def named_stages(recipe: Recipe) -> Iterator[tuple[str, Stage]]:
    """Yield every stage of `recipe`, enabled or not, under the name its keys have: `train`, `fix` or `stages.N`."""
    if recipe.stages:
        yield from ((f"stages.{index}", stage) for index, stage in enumerate(recipe.stages))
    else:
        yield "train", recipe.train
        yield "fix", recipe.fix


def _complete_stage(stage: Any, table: Mapping[str, Any], raw: Mapping[str, Any], train: Any) -> Any:
    if stage is None:
        stage = {}
    if not isinstance(stage, Mapping):
        return stage
    filled = {name: _default(default, raw, train) for name, default in table.items()}
    filled.update(stage)
    if table is FIX:
        filled = {**filled, **_solver_defaults(stage, filled, raw)}
    elif "views" not in stage and filled["head"] == "solved" and filled["augment"] in _WITHOUT_FLIP:
        filled["views"] = 1
    if "warmup_epochs" not in stage and not is_given(raw, "schedule.warmup_epochs"):
        # One epoch is a sensible warm-up only for stages that are longer than two.
        epochs = filled["epochs"]
        if filled["schedule"] == "points":
            filled["warmup_epochs"] = 0.0
        elif isinstance(epochs, int):
            filled["warmup_epochs"] = min(filled["warmup_epochs"], epochs / 2)
    return {**filled, **_complete_lr(stage, filled, raw)}


def _complete_lr(stage: Mapping[str, Any], filled: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return lr, base_lr and lr_rule of a stage, where they do not follow from the tables alone.

    What the stage says itself wins over `optim`. Where one place gives both lr and base_lr, both are kept, and
    `problems` compares them: a completed recipe has both, and has to be read back.
    """
    if "lr" in stage and "base_lr" not in stage:
        return {"base_lr": 0.0, "lr_rule": stage.get("lr_rule", "none")}
    base, rule, batch = filled["base_lr"], filled["lr_rule"], filled["batch_size"]
    if not _is_number(base) or base <= 0 or not isinstance(batch, int):
        return {}
    if "lr_rule" not in stage and not is_given(raw, "optim.lr_rule"):
        rule = "linear256"
    gives_both = "lr" in stage if "base_lr" in stage else is_given(raw, "optim.lr")
    if gives_both or not _is_rule(rule):
        return {"lr_rule": rule}
    return {"lr_rule": rule, "lr": learning_rate_of(base, rule, batch)}


def _solver_defaults(stage: Mapping[str, Any], filled: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return solver and views of a fix where it does not say them itself."""
    found: dict[str, Any] = {}
    if "solver" not in stage:
        is_cached = filled["moves"] in solved_by("cached") and filled["head"] != "solved"
        is_cached = is_cached and not (filled["moves"] in solved_by("sgd") and set(stage) - CACHED_KEYS)
        # Whether the network's head suits the cached solver is known once there is a network.
        found["solver"] = "auto" if is_cached else "sgd"
    if "views" not in stage:
        found["views"] = 1 if _setting(raw, "augment.policy") in _WITHOUT_FLIP else FIX["views"]
    return found


def _default(default: Any, raw: Mapping[str, Any], train: Any) -> Any:
    if not isinstance(default, From):
        return default
    section, name = default.key.split(".")
    if section == "train":
        return value_at(train, name, TRAIN[name])
    value = _setting(raw, default.key)
    if value_at(raw, "optim.name", "sgd") not in ("sgd", "nesterov"):
        # The ratio is that of SGD in FixRes; the steps of Adam do not shrink with the gradients of a trained network.
        return value
    if default.ratio != 1 and isinstance(value, int | float):
        return float(f"{value * default.ratio:.10g}")
    return value


def _setting(raw: Mapping[str, Any], key: str) -> Any:
    """Return the value of a section's key, its default where it is not given."""
    section, name = key.split(".")
    default = getattr(Recipe.model_fields[section].default, name)
    return value_at(raw, key, list(default) if isinstance(default, tuple) else default)
