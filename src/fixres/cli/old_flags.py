"""Flags of the four systems, typed where they do not exist: one line that says where their users find ours."""

from __future__ import annotations

from collections.abc import Iterable

from fixres.errors import counted

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
    return f"unknown option {flags}: {what} of {' and '.join(systems)}; docs/migration.md says what to type here"
