"""torch.hub finds the three networks in a checkout, installed or not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hubconf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return hubconf.py as a module; what it does to sys.path is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("hubconf_under_test", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_three_are_listed_and_nothing_else(hubconf: ModuleType) -> None:
    # The rule of torch.hub.list, which itself asks GitHub.
    listed = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert listed == {"fixresnet_50", "fixresnet_50_CutMix", "fixresnext101_32x48d"}
    assert all("top-1" in getattr(hubconf, name).__doc__ for name in listed)


@pytest.mark.parametrize("entry", ["fixresnet_50", "fixresnet_50_CutMix"])
def test_a_network_without_weights(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = torch.hub.load(str(ROOT), entry, source="local", pretrained=False, num_classes=7)
    assert isinstance(model, nn.Module)
    assert model.get_classifier().out_features == 7


def test_the_large_network_is_the_published_one(hubconf: ModuleType) -> None:
    with torch.device("meta"):  # 3.3 GB otherwise
        model = hubconf.fixresnext101_32x48d(pretrained=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 828_411_176


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("fixresnet_50", "FixResNet50_v2"),
        ("fixresnet_50_CutMix", "FixResNet50_CutMix_v2"),
        ("fixresnext101_32x48d", "FixResNeXt101_32x48d_v2"),
    ],
)
def test_the_weights_are_those_of_version_two(
    hubconf: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entry: str, name: str
) -> None:
    import fixres
    import fixres.models.released

    fetched: list[str] = []

    def fetch_released(name: str, progress: Any) -> None:
        fetched.append(name)
        for done in (0, 3 << 20, 5 << 20):
            progress(done, 5 << 20)

    model = nn.Identity()
    monkeypatch.setattr(fixres.models.released, "fetch_released", fetch_released)
    monkeypatch.setattr(
        fixres, "load", lambda source: fetched.append(source) or type("P", (), {"model": model}), raising=False
    )
    assert getattr(hubconf, entry)() is model
    assert fetched == [name, f"fixres:{name}"]
    assert "CC BY-NC 4.0" in capsys.readouterr().err
    with pytest.raises(fixres.UserError, match="leave out num_classes"):
        getattr(hubconf, entry)(num_classes=3)


# What the modules of fixres hold from other packages, by the module each thing was defined in.
ELSEWHERE = """
import importlib.metadata, sys, torch
version = importlib.metadata.version
def not_installed(name):
    if name == "fixres":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = not_installed
torch.hub.load(sys.argv[1], "fixresnet_50", source="local", pretrained=False)
import fixres
try:
    torch.hub.load(sys.argv[1], "fixresnet_50", source="local")
except fixres.UserError as error:
    assert "FIXRES_OFFLINE is set" in str(error)
print(fixres.__file__)
for module in [m for name, m in sys.modules.items() if name.startswith("fixres.")]:
    for thing in vars(module).values():
        home = thing.__name__ if type(thing) is type(sys) else getattr(thing, "__module__", None)
        print((home or "sys").split(".")[0])
"""


def test_it_works_from_a_checkout_that_nobody_installed(tmp_path: Path, hubconf: ModuleType) -> None:
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    environment = {**os.environ, "FIXRES_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "torch")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    place, *homes = done.stdout.split()
    assert Path(place) == tmp_path / "src" / "fixres" / "__init__.py"
    others = set(homes) - set(sys.stdlib_module_names) - {"fixres"}
    assert {"torch", "timm", "filelock", "safetensors"} <= others <= set(hubconf.dependencies)
