"""Flags that do not exist: one line about those of the four systems, and what others were probably meant to be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from fixres.config.messages import find_field, keys_of, suggest_key
from fixres.config.recipe import Recipe
from fixres.errors import counted, did_you_mean

_FIXRES = """
    architecture batch dataset_path efficientnet_models epochs global_rank imnet_path input_size job_id learning_rate
    local_rank node num_tasks resnet_weight_path save_path shared_folder_path version weight_path
"""
_ASCEND = "addr data_path device_id pth_path"
_RESNEXT = """
    class_label_file device_type image_path image_size model_arch_name model_mean_parameters model_num_classes
    model_std_parameters model_weights_path
"""
_SIMPLE = """
    batch_size gpu max_lr min_lr momentum nb_cls nb_epoch pretrained_net save_dir test_dir test_size train_dir
    train_size warmup_epoch weight_decay
"""
_SYSTEMS = {"FixRes": _FIXRES, "the Ascend port": _ASCEND, "ResNeXt-PyTorch": _RESNEXT, "SimpleClassification": _SIMPLE}
_SYSTEM_OF = {flag: system for system, flags in _SYSTEMS.items() for flag in flags.split()}


def is_old(key: str) -> bool:
    """Return whether a flag, with `_` for `-`, is one of the four systems'."""
    return key.lower() in _SYSTEM_OF


def old_flags_line(keys: Iterable[str]) -> str:
    """Return the one line about flags of the four systems, however many were typed."""
    given = list(keys)
    systems = dict.fromkeys(_SYSTEM_OF[key.lower()] for key in given)
    flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
    what = "an option" if len(given) == 1 else counted(len(given), "option")
    whose = " and ".join(systems).replace("FixRes", "the FixRes scripts of 2019")
    return f"unknown option {flags}: {what} of {whose}; docs/migration.md says what to type here"


def dashed(key: str) -> str:
    """Return an option as it is typed."""
    return f"--{key.replace('_', '-')}"


def unknown_flags(keys: Sequence[str], options: Collection[str], with_recipe: bool = False) -> Iterator[str]:
    """Yield what is wrong with unknown flags: a line each, those of the four systems together on one."""
    # A letter that is missing from an option there is, is a slip first.
    if old := [key for key in keys if is_old(key) and f"{key}s" not in options]:
        hints = ((key, _unknown_flag(key, options, with_recipe).partition(" - did you mean ")[2]) for key in old)
        # Where a key of the recipe has the very name, it is what others mean by it too.
        close = "".join(f"\n  {dashed(key)}: did you mean {hint}" for key, hint in hints if hint.endswith(f".{key}'?"))
        yield old_flags_line(old) + close
    yield from (_unknown_flag(key, options, with_recipe) for key in keys if key not in old)


def _unknown_flag(key: str, options: Collection[str], with_recipe: bool = False) -> str:
    if hint := did_you_mean(key, [name.replace("_", "-") for name in options]):
        return f"unknown option '{dashed(key)}'" + hint.replace("'", "'--", 1)
    if not with_recipe:
        return f"unknown option '{dashed(key)}'"
    found = find_field(key)
    if found is not None:
        examples = [name for name, _ in keys_of(Recipe) if name.startswith(f"{key}.")]
        example = f"--{examples[1]} VALUE" if examples else "--stages.0.lr VALUE"
        return f"'--{key}' is a section of the recipe; name one of its keys, for example {example}"
    return f"unknown option '--{key}'" + suggest_key(key, lambda close: f"--{close}")
