"""Writing a product: the same network and sheet give the same bytes, but for the time under `created`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fixres.checkpoints.product import Sheet
from fixres.errors import fixres_version
from fixres.io.files import write_text
from fixres.io.tensors import write_weights
from fixres.models import build
from fixres.models.own_architectures import OWN_ARCHITECTURES
from fixres.models.pretrained import published_config
from fixres.models.sizes import bound_size

BEFORE_FIX = "before_fix.safetensors"
SIZES = "sizes"


def save_product(folder: Path, model: nn.Module, sheet: Sheet, before_fix: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json, model.safetensors, README.md and, after a fix, before_fix.safetensors."""
    write_weights(folder / "model.safetensors", dict(model.state_dict()))
    if before_fix:
        write_weights(folder / BEFORE_FIX, dict(before_fix))
    else:
        (folder / BEFORE_FIX).unlink(missing_ok=True)
    names = {size: f"{size:03}.safetensors" for size in sheet.heads}
    for size, name in names.items():
        write_weights(folder / SIZES / name, dict(sheet.heads[size].tensors))
    config = _config(model, sheet, bool(before_fix))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    # Those of a product that was here before, once nothing names them.
    for path in (folder / SIZES).glob("*.safetensors"):
        if path.name not in names.values():
            path.unlink()
    write_text(folder / "README.md", _card(config))


def _config(model: nn.Module, sheet: Sheet, has_before_fix: bool) -> dict[str, Any]:
    p = sheet.preprocess
    model_args = dict(sheet.model_args)
    bound = bound_size(model)
    if bound is not None:
        model_args["img_size"] = bound
    labels: dict[str, Any] = {"label_names": list(sheet.classes)} if sheet.has_names else {}
    if sheet.descriptions:
        labels["label_descriptions"] = dict(sheet.descriptions)
    pretrained = {
        **published_config(model),
        "num_classes": len(sheet.classes),
        "input_size": [3, sheet.train_size, sheet.train_size],
        "test_input_size": [3, p.size, p.size],
        "crop_pct": p.crop_ratio,
        "test_crop_pct": p.crop_ratio,
        "crop_mode": {"squash": "squash", "pad": "border"}.get(p.resize, "center"),
        "interpolation": p.interpolation,
        "mean": list(p.mean),
        "std": list(p.std),
        **labels,
    }
    sizes = {
        str(size): {"file": f"{SIZES}/{size:03}.safetensors", **head.result}
        for size, head in sorted(sheet.heads.items())
    }
    return {
        "architecture": build.architecture(model),
        "num_classes": len(sheet.classes),
        **labels,
        "model_args": model_args,
        "pretrained_cfg": pretrained,
        "fixres": {
            "version": fixres_version(),
            "train_size": sheet.train_size,
            "test_size": p.size,
            "resize_size": p.resize_size,
            "crop_ratio": p.crop_ratio,
            "resize": p.resize,
            "exif": p.exif,
            "alpha": p.alpha,
            "exact": p.exact,
            "moves": sheet.moves,
            "weights": sheet.weights,
            "before_fix": BEFORE_FIX if has_before_fix else None,
            "before_fix_size": sheet.before_size,
            **({"size": p.size, "sizes": sizes} if sizes else {}),
            "results": list(sheet.results),
            "evaluation": dict(sheet.evaluation),
            "data": dict(sheet.data),
            "seed": sheet.seed,
            **({"promises": dict(sheet.promises)} if sheet.promises else {}),
            **({"cascade": dict(sheet.cascade)} if sheet.cascade else {}),
            **({"average": dict(sheet.average)} if sheet.average else {}),
            **({"new_head": True} if sheet.has_new_head else {}),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _card(config: Mapping[str, Any]) -> str:
    own = config["fixres"]
    rows = [
        f"| {r['size']} | {r['top1']:.2f} | {r['top1_ci95'][0]:.1f} to {r['top1_ci95'][1]:.1f} | {r['gmacs']:.3f} |"
        for r in own["results"]
    ]
    results = ""
    if rows:
        evaluation = own["evaluation"]
        head = "| size | top-1 % | 95 % interval | GMACs |\n| --- | --- | --- | --- |\n"
        results = (
            f"\nMeasured on the {evaluation.get('split')} split, {evaluation.get('num_images')} pictures:\n\n"
            + head
            + "\n".join(rows)
            + "\n"
        )
    note = ""
    if own["resize"] == "height":
        note = (
            "\nThe height resize is that of the released FixRes code; timm has none like it and will not repeat it.\n"
        )
    licence = own["data"].get("license") or "not stated"
    weights_licence = f", licence {own['data']['weights_license']}" if own["data"].get("weights_license") else ""
    crop = f"{own['resize']} side to {own['resize_size']}, centre crop {own['test_size']}"
    if own["resize"] in ("squash", "pad"):
        crop = f"{own['resize']} to {own['test_size']}"
    made = ""
    if "average" in own:
        used = [entry["source"] for entry in own["average"]["ingredients"] if entry["used"]]
        made = f"\nThe mean ({own['average']['kind']}) of the weights of {len(used)} networks: {', '.join(used)}.\n"
    trained = f"Trained at {own['train_size']} px"
    if own.get("new_head"):
        trained = "A head on frozen features: the network itself was not trained on these pictures; it is"
    return (
        f"# {config['architecture']}, {config['num_classes']} classes\n\n"
        f"{trained}{'' if own.get('new_head') else ','} to be used at {own['test_size']} px: {crop}, "
        f"{config['pretrained_cfg']['interpolation']}; moved last: {own['moves']}; weights: {own['weights']}.\n"
        f"{made}{results}{note}\n"
        f"```python\n{_usage(config['architecture'])}```\n\n"
        f"Licence of the training pictures: {licence}. "
        f"Starting weights: {own['data'].get('weights') or 'random'}{weights_licence}.\n"
    )


def _usage(architecture: str) -> str:
    """Return the lines that load the folder: timm's where timm has the network, ours where it does not."""
    if architecture in OWN_ARCHITECTURES:
        return (
            f'# {architecture} is not part of timm\nimport fixres\nmodel = fixres.load("PATH/TO/THIS/FOLDER").model\n'
        )
    return 'import timm\nmodel = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True).eval()\n'
