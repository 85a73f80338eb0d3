"""torch.hub entry points: FixRes networks as ready modules, from this checkout and without installing it."""

from __future__ import annotations

# Modules, not names: torch.hub.list takes every callable here for an entry point.
import pathlib
import sys
import typing

from torch import nn

dependencies = [
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "huggingface_hub",
    "filelock",
    "pydantic",
    "pydantic_core",
    "yaml",
    "numpy",
    "PIL",
]

# In front: this file speaks to the fixres beside it, not to another one that may be installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "src"))


def fixresnet_50(pretrained: bool = True, progress: bool = True, **kwargs: typing.Any) -> nn.Module:
    """Return the ResNet-50 of FixRes, v2: trained at 224 px, to be used at 384 px; 79.1 % top-1 on ImageNet.

    Args:
        pretrained: with the released weights, which are CC BY-NC 4.0; in evaluation mode.
        progress: show on stderr how far the download is.
        kwargs: `num_classes` and what timm's network takes; only without the weights.
    """
    return _network("FixResNet50_v2", pretrained, progress, kwargs)


def fixresnet_50_CutMix(pretrained: bool = True, progress: bool = True, **kwargs: typing.Any) -> nn.Module:  # noqa: N802
    """Return the ResNet-50 of FixRes trained with CutMix, v2: 224 px, to be used at 320 px; 79.8 % top-1.

    The arguments are those of `fixresnet_50`.
    """
    return _network("FixResNet50_CutMix_v2", pretrained, progress, kwargs)


def fixresnext101_32x48d(pretrained: bool = True, progress: bool = True, **kwargs: typing.Any) -> nn.Module:
    """Return the ResNeXt-101 32x48d of FixRes, v2: 224 px, to be used at 320 px; 86.4 % top-1.

    The arguments are those of `fixresnet_50`. 829 million parameters: 3.3 GB to fetch and to hold.
    """
    return _network("FixResNeXt101_32x48d_v2", pretrained, progress, kwargs)


def _network(name: str, pretrained: bool, progress: bool, kwargs: dict[str, typing.Any]) -> nn.Module:
    # Imported here: `torch.hub.list` must not wait for timm.
    from fixres.errors import UserError
    from fixres.models.build import build_model
    from fixres.models.released import fetch_released, find_released

    if not pretrained:
        num_classes = kwargs.pop("num_classes", 1000)
        return build_model(find_released(name).architecture, num_classes, kwargs)
    if kwargs:
        raise UserError(f"the released weights fit one network only\n  leave out {', '.join(kwargs)}, or pretrained")

    import fixres

    # Before the download, which would be waited for in vain if this could not be imported.
    load = fixres.load
    # Fetched here for the sake of the progress; load finds it.
    fetch_released(name, _Line(name, find_released(name).license) if progress else None)
    model: nn.Module = load(f"fixres:{name}").model
    return model


class _Line:
    """One line on stderr that says how much of a file has come; at its first call, under which licence."""

    def __init__(self, name: str, licence: str) -> None:
        self.name = name
        self.licence = licence
        self.shown = -1

    def __call__(self, done: int, total: int | None) -> None:
        if self.shown < 0:
            sys.stderr.write(f"{self.name}: licence {self.licence}\n")
        if done >> 20 != self.shown or done == total:
            self.shown = done >> 20
            of_total = f" of {total >> 20}" if total else ""
            sys.stderr.write(f"\r{self.name}: {self.shown}{of_total} MiB" + ("\n" if done == total else ""))
            sys.stderr.flush()
