"""A folder's config.json may hold anything: what is no configuration is refused in one message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fixres
from fixres.cli.main import main

Config = dict[str, Any]


def changed(pushed: Path, folder: Path, change: Callable[[Config], Any]) -> Path:
    """Return a copy of the folder with its config.json changed in place, or replaced by what `change` returns."""
    shutil.copytree(pushed, folder)
    config = json.loads((folder / "config.json").read_text())
    replaced = change(config)
    text = replaced if isinstance(replaced, str) else json.dumps(config if replaced is None else replaced)
    (folder / "config.json").write_text(text)
    return folder


def put(*path: str) -> Callable[[Any], Callable[[Config], None]]:
    def with_value(value: Any) -> Callable[[Config], None]:
        def change(config: Config) -> None:
            for key in path[:-1]:
                config = config.setdefault(key, {})
            config[path[-1]] = value

        return change

    return with_value


cfg = "pretrained_cfg"


HOSTILE: dict[str, tuple[Callable[[Config], Any], str]] = {
    "a file to read": (put("model_args", "checkpoint_path")("/etc/passwd"), "checkpoint_path says how timm builds"),
    "pretrained": (put("model_args", "pretrained")(True), "pretrained says how timm builds"),
    "another configuration": (put("model_args", "pretrained_cfg_overlay")({}), "pretrained_cfg_overlay says"),
    "a device": (put("model_args", "device")("meta"), "device says how timm builds"),
    "a layer that is none": (put("model_args", "act_layer")("x"), "do not suit 'test_resnet'"),
    "arguments in a list": (put("model_args")([1]), "model_args"),
    "another folder's network": (put("architecture")("local-dir:/x"), "architecture"),
    "a network in a list": (put("architecture")(["resnet18"]), "architecture"),
    "an unknown network": (put("architecture")("resnet19"), "unknown model 'resnet19'"),
    "a million million classes": (put("num_classes")(10**12), "num_classes"),
    "a crop that is no number": (put(cfg, "crop_pct")("x"), "crop_pct"),
    "a negative crop": (put(cfg, "crop_pct")(-1), "crop_pct"),
    "no mean": (put(cfg, "mean")(0.5), "mean"),
    "two means": (put(cfg, "mean")([0.5, 0.5]), "mean"),
    "no spread": (put(cfg, "std")([0, 0, 0]), "std"),
    "no size": (put(cfg, "input_size")([]), "input_size"),
    "an enormous size": (put(cfg, "input_size")([3, 10**7, 10**7]), "input_size"),
    "no square": (put(cfg, "input_size")([3, 160, 224]), "no square"),
    "an unknown resize": (put("fixres", "resize")("evil"), "resize"),
    "a file elsewhere": (put("fixres", "before_fix")("../../../etc/passwd"), "before_fix"),
    "too few names": (put("label_names")(["a", "b"]), "2 label_names for 3 classes"),
    "a name twice": (put("label_names")(["a", "b", "a"]), "names a class twice"),
    "names that are none": (put("label_names")([["a"], 1, None]), "label_names"),
    "a list": (lambda _: [1], "damaged or not a timm model folder"),
    "no JSON": (lambda _: "{", "damaged or not a timm model folder"),
    "deep brackets": (lambda _: "[" * 100_000, "damaged or not a timm model folder"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_or_damaged_configuration_is_refused(fault: str, pushed: Path, tmp_path: Path, capsys: Any) -> None:
    change, message = HOSTILE[fault]
    folder = changed(pushed, tmp_path / "in", change)
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_timms_first_form_of_configuration(pushed: Path, tmp_path: Path) -> None:
    def flat(config: Config) -> Config:
        return {"architecture": config["architecture"], "num_classes": 3, **config[cfg]}

    assert len(fixres.load(changed(pushed, tmp_path / "in", flat)).classes) == 3
