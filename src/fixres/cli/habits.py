"""What people type by habit from other programs, typed again in our words: one line to paste, nothing left out.

No synonyms: a line that is understood is still refused, so that there is one way to write everything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.cli.subject import what_is

_DATA = (
    *("data", "data.uri", "uri", "data_dir", "datadir", "data_path", "data_root", "dataset", "dataset_path"),
    *("dataset_dir", "root", "image_dir", "images", "img_dir", "train_dir", "imnet_path", "image_folder", "folder"),
    *("photos", "pictures"),
)
_NETWORK = ("model", "model_name", "arch", "architecture", "model_arch_name", "network", "net", "backbone", "encoder")
_SIZE = ("img_size", "image_size", "imgsz", "input_size", "size", "sizes", "resolution", "im_size", "crop_size")
_BATCH = ("batch_size", "batch", "bs", "train_batch_size", "per_device_train_batch_size")
_WORKERS = ("workers", "num_workers", "dataloader_num_workers")
_OUT = ("output", "output_dir", "outdir", "out_dir", "save_dir", "save_path", "results_dir")
_WEIGHTS = ("checkpoint", "ckpt", "weights", "weight_path", "weights_path", "initial_checkpoint", "init_checkpoint")
_RECIPE = {
    **dict.fromkeys(_DATA, "data.uri"),
    **dict.fromkeys(_NETWORK, "model.name"),
    **dict.fromkeys(_SIZE, "train.size"),
    **dict.fromkeys(_BATCH, "train.batch_size"),
    **dict.fromkeys(_WORKERS, "data.workers"),
    **dict.fromkeys(_OUT, "out"),
    **dict.fromkeys((*_WEIGHTS, "pretrained"), "model.weights"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "max_epochs", "nb_epoch", "num_train_epochs"), "train.epochs"),
    **dict.fromkeys(("lr", "learning_rate", "lr0"), "train.lr"),
    **dict.fromkeys(("weight_decay", "wd"), "train.weight_decay"),
    **dict.fromkeys(("opt", "optimizer", "optim"), "optim.name"),
    **dict.fromkeys(("sched", "scheduler", "lr_scheduler", "schedule"), "schedule.name"),
    **dict.fromkeys(("warmup_epochs", "warmup_epoch", "warmup"), "train.warmup_epochs"),
    **dict.fromkeys(("smoothing", "label_smoothing"), "train.label_smoothing"),
    **dict.fromkeys(("num_classes", "nb_classes", "nb_cls"), "model.num_classes"),
    **{key: f"train.{key}" for key in ("mixup", "cutmix", "patience", "freeze", "min_lr")},
    **{"momentum": "optim.momentum", "loss": "loss.name", "augment": "augment.policy", "ema": "ema.enabled"},
    **{"device": "runtime.device", "precision": "runtime.precision", "random_seed": "seed"},
    **{"drop": "model.kwargs.drop_rate", "drop_path": "model.kwargs.drop_path_rate"},
}
_FLAGS = {
    **dict.fromkeys((*_NETWORK, "model.name"), ("model",)),
    **dict.fromkeys(_SIZE, ("sizes", "size")),
    **dict.fromkeys(_BATCH, ("batch_size",)),
    **dict.fromkeys(_WORKERS, ("workers",)),
    **dict.fromkeys((*_OUT, "output.dir"), ("out",)),
    **{"k": ("top_k",), "topk": ("top_k",), "learning_rate": ("lr",), "num_epochs": ("epochs",)},
}
SHORT = {"-b": "--batch_size", "-j": "--workers", "-d": "--data", "-m": "--model", "-o": "--output", "-e": "--epochs"}
"""Options of one letter, as they are typed elsewhere."""
FOR_PICTURES = frozenset(("minutes", "models", "final", "out", "resume", "quiet", "verbose", "dry_run"))
"""Options of `fixres train PHOTOS`, which chooses everything else itself."""
_FOR_EVERYTHING = ("train.", "optim.", "schedule.", "augment.", "loss.", "ema.", "fix.")
"""Sections that may be decided for pictures whose network is chosen."""
_TAKES_PICTURES = ("fixres advise",)
"""Commands whose word may name pictures in place of a checkpoint."""

Options = Mapping[str, Sequence[str]]
"""Options that were typed, without their dashes, and the words behind each."""


@dataclass(frozen=True)
class Known:
    """What a command takes."""

    has: Callable[[str], bool]
    """Whether there is an option of that name, `_` for `-`."""
    is_switch: Callable[[str], bool]
    words: tuple[str, ...] = ()
    """Its words, by the names of their fields."""


def for_recipe(prog: str, words: Sequence[str], options: Options, known: Known) -> str:
    """Return a command line about a recipe in our words; empty where a part of it stays unknown."""
    said: dict[str, list[str]] = {}
    loose: list[str] = list(words)
    is_changed = is_word = False
    for key, given in options.items():
        if known.has(key) or (key in FOR_PICTURES and prog == "fixres train"):
            said[key] = list(given)
            continue
        place, first = _RECIPE.get(key.lower()), given[:1]
        if key == "pretrained":
            is_bare = not first or first[0].lower() not in ("true", "false", "yes", "no", "1", "0")
            loose += given if is_bare else given[1:]
            first = ["none" if not is_bare and first[0].lower() in ("false", "no", "0") else "pretrained"]
        elif key == "ema" and not first:
            first = ["true"]
        else:
            loose += given[1:]
        if place is None or not first:
            return ""
        said[_weights_or_name(place, first[0])], is_changed = list(first), True
    name = ""
    for word in loose:
        key, equals, value = _assigned(word)
        place = key if known.has(key) else _RECIPE.get(key)
        subject = what_is(word)
        if equals and place and value and subject == "nothing":
            said[_weights_or_name(place, value)], is_changed = [value], True
        elif subject == "pictures" and "data.uri" not in said:
            said["data.uri"], is_changed, is_word = [word], True, True
        elif not name and (subject in ("recipe", "run") or word.endswith((".yaml", ".yml"))):
            name = word
        else:
            return ""
    if not is_changed or (not name and "data.uri" not in said):
        return ""
    others = {key for key in said if not (is_word and key.startswith(_FOR_EVERYTHING))}
    if not name and prog == "fixres train" and others - {"data.uri"} <= FOR_PICTURES:
        name = said.pop("data.uri")[0]
    first_ones = {"data.uri": said.pop("data.uri")} if "data.uri" in said else {}
    return _line(prog, [name] if name else [], {**first_ones, **said}, known)


def for_command(prog: str, words: Sequence[str], options: Options, known: Known) -> str:
    """Return the command line of a command with flags in our words; empty where a part of it stays unknown."""
    said: dict[str, list[str]] = {}
    pictures: list[str] = []
    rest: list[str] = []
    checkpoint: list[str] = []
    is_changed = False
    for key, given in options.items():
        is_changed = is_changed or not known.has(key)
        if known.has(key):
            said[key] = list(given)
        elif key.lower() in _DATA and given:
            pictures += given[:1]
            rest += given[1:]
        elif key.lower() in _WEIGHTS and given and "checkpoint" in known.words:
            checkpoint += given[:1]
            rest += given[1:]
        elif place := _flag(key, known):
            said[place] = list(given[:1])
            rest += given[1:]
        else:
            return ""
    for word in [*words, *rest]:
        key, equals, value = _assigned(word)
        place = key if known.has(key) else _flag(key, known)
        if equals and value and what_is(word) == "nothing" and (place or key in _DATA):
            is_changed = True
            if place:
                said[place] = [value]
            else:
                pictures.append(value)
        elif "checkpoint" in known.words and what_is(word) == "pictures" and prog not in _TAKES_PICTURES:
            pictures.append(word)
        else:
            checkpoint.append(word)
    if not (is_changed or (pictures and (known.has("data") or not checkpoint))):
        return ""
    if "checkpoint" in known.words and not checkpoint:
        checkpoint = ["RUN"]
    if pictures and known.has("data") and len(pictures) == 1 and "data" not in said:
        said = {"data": pictures, **said}
    elif pictures and not {"paths", "uri"} & set(known.words):
        return ""
    else:
        checkpoint += pictures
    return _line(prog, checkpoint, said, known)


def pictures_as_checkpoint(prog: str, word: str) -> str:
    """Return what is wrong with pictures where a checkpoint belongs; empty where the word names none."""
    if prog in _TAKES_PICTURES or what_is(word) != "pictures":
        return ""
    return f"{word} names pictures, where a checkpoint belongs"


def as_command(words: Sequence[str]) -> tuple[str, str]:
    """Return what a line without a command begins with, in words, and the line with one; both empty where unknown."""
    word = words[0]
    subject = what_is(word)
    rest = list(words[1:])
    if subject == "pictures":
        return "names pictures", shlex.join(["fixres", "train", *words])
    if subject == "picture":
        return "is a picture", shlex.join(["fixres", "predict", "RUN", *words])
    if subject == "recipe" and (not Path(word).is_file() or Path(word).suffix in (".yaml", ".yml")):
        return "is a recipe", shlex.join(["fixres", "train", *words])
    if subject == "run":
        return "holds a run or a model", shlex.join(["fixres", "eval", word, *rest])
    key, equals, value = _assigned(word)
    if (equals and value and _RECIPE.get(key)) or word.startswith("--"):
        return "is a setting", shlex.join(["fixres", "train", *words])
    return "", ""


def _assigned(word: str) -> tuple[str, str, str]:
    """Return key, = and value of `key=value`, also as Hydra's `+key=value`."""
    match = re.fullmatch(r"\+{0,2}([A-Za-z][\w.-]*)(=)(.*)", word)
    return (match[1].replace("-", "_"), match[2], match[3]) if match else ("", "", "")


def _weights_or_name(place: str, value: str) -> str:
    """Return model.weights for a value of model.name that says where weights are."""
    if place == "model.name" and (":" in value or "/" in value or Path(value).is_file()):
        return "model.weights"
    return place


def _flag(key: str, known: Known) -> str:
    candidates: Iterable[str] = (*_FLAGS.get(key.lower(), ()), key.rpartition(".")[2] if "." in key else "")
    return next((name for name in candidates if name and known.has(name)), "")


def _line(prog: str, words: Sequence[str], options: Options, known: Known) -> str:
    parts = [prog, *map(shlex.quote, words)]
    for key, given in options.items():
        flag = f"--{key}" if "." in key else f"--{key.replace('_', '-')}"
        if known.is_switch(key) and list(given) == ["true"]:
            parts.append(flag)
        elif any(value.startswith("-") and not value[1:2].isdigit() for value in given):
            parts.append(f"{flag}={shlex.quote(given[0])}")
        else:
            parts += [flag, *map(shlex.quote, given)]
    return " ".join(parts)
