"""The product: a model folder in timm's layout that says how it wants to be fed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fixres import __version__, models
from fixres.checkpoint import read_weights, write_weights
from fixres.errors import UserError
from fixres.resolution import Preprocess, Resize
from fixres.runlog import write_text

_RESIZE_OF_TIMM: dict[str, Resize] = {"center": "shorter", "squash": "squash", "border": "pad"}
BEFORE_FIX = "before_fix.safetensors"


@dataclass(frozen=True)
class Product:
    """A trained network with everything needed to use it."""

    model: nn.Module
    architecture: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    """At the test size."""
    train_size: int
    weights: str
    """ema | raw, or before_fix."""
    model_args: Mapping[str, Any]
    """What timm.create_model was given beside the name, the size of a position grid apart."""
    has_names: bool
    """Whether the class names are real, not the numbers of the outputs."""
    details: Mapping[str, Any]
    """The "fixres" key of config.json; empty for foreign weights."""
    source: str

    def at(self, size: int) -> Product:
        """Return the product ready for inputs `[B, 3, size, size]`."""
        if size == self.preprocess.size:
            return self
        return replace(self, model=models.at_size(self.model, size), preprocess=self.preprocess.at(size))


@dataclass(frozen=True)
class Sheet:
    """What config.json states beside the architecture."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    train_size: int
    moves: str
    weights: str
    results: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    """Split, file list hash, batch size, threads, precision and layout behind `results`."""
    data: Mapping[str, Any]
    model_args: Mapping[str, Any]
    seed: int = 0
    before_size: int | None = None
    """Size of the position grid before the fix, where there is one."""


def save_product(folder: Path, model: nn.Module, sheet: Sheet, before_fix: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json, model.safetensors, README.md and, after a fix, before_fix.safetensors."""
    write_weights(folder / "model.safetensors", dict(model.state_dict()))
    if before_fix:
        write_weights(folder / BEFORE_FIX, dict(before_fix))
    else:
        (folder / BEFORE_FIX).unlink(missing_ok=True)
    config = _config(model, sheet, bool(before_fix))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "README.md", _card(config))


def _config(model: nn.Module, sheet: Sheet, has_before_fix: bool) -> dict[str, Any]:
    p = sheet.preprocess
    model_args = dict(sheet.model_args)
    bound = models.bound_size(model)
    if bound is not None:
        model_args["img_size"] = bound
    pretrained = {
        **models.published_config(model),
        "num_classes": len(sheet.classes),
        "input_size": [3, sheet.train_size, sheet.train_size],
        "test_input_size": [3, p.size, p.size],
        "crop_pct": p.crop_ratio,
        "test_crop_pct": p.crop_ratio,
        "crop_mode": {"squash": "squash", "pad": "border"}.get(p.resize, "center"),
        "interpolation": p.interpolation,
        "mean": list(p.mean),
        "std": list(p.std),
        "label_names": list(sheet.classes),
    }
    return {
        "architecture": models.architecture(model),
        "num_classes": len(sheet.classes),
        "label_names": list(sheet.classes),
        "model_args": model_args,
        "pretrained_cfg": pretrained,
        "fixres": {
            "version": __version__,
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
            "results": list(sheet.results),
            "evaluation": dict(sheet.evaluation),
            "data": dict(sheet.data),
            "seed": sheet.seed,
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
    crop = f"{own['resize']} side to {own['resize_size']}, centre crop {own['test_size']}"
    if own["resize"] in ("squash", "pad"):
        crop = f"{own['resize']} to {own['test_size']}"
    return (
        f"# {config['architecture']}, {config['num_classes']} classes\n\n"
        f"Trained at {own['train_size']} px, to be used at {own['test_size']} px: {crop}, "
        f"{config['pretrained_cfg']['interpolation']}; moved last: {own['moves']}; weights: {own['weights']}.\n"
        f"{results}{note}\n"
        "```python\n"
        "import timm\n"
        'model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True).eval()\n'
        "```\n\n"
        f"Licence of the training pictures: {licence}. "
        f"Starting weights: {own['data'].get('weights') or 'random'}.\n"
    )


def load(source: str | Path, weights: str = "fixed", model_name: str | None = None) -> Product:
    """Load a product.

    Args:
        source: a run folder, a model folder, or a weights file together with `model_name`.
        weights: `fixed` (what ships), or `before_fix`.
        model_name: timm architecture of a bare weights file.

    Raises:
        UserError: there is nothing to load, or it does not fit.
    """
    path = Path(source)
    if path.is_file():
        return _load_file(path, model_name)
    folder = next((f for f in (path / "model", path) if (f / "config.json").is_file()), None)
    if folder is None:
        what = "does not exist" if not path.exists() else "is no model folder"
        if (path / "metrics.jsonl").exists():
            what = "has no product yet: the run has not finished"
        raise UserError(
            f"{path} {what}\n  give a run folder, a model folder (config.json, model.safetensors), or FILE --model NAME"
        )
    return _load_folder(folder, weights)


def _load_folder(folder: Path, weights: str) -> Product:
    try:
        config = json.loads((folder / "config.json").read_text())
        own = config.get("fixres", {})
        cfg = config["pretrained_cfg"]
        name = config["architecture"]
        classes = tuple(config.get("label_names") or cfg.get("label_names") or ())
        train_size = int(cfg["input_size"][-1])
        test_size = int((cfg.get("test_input_size") or cfg["input_size"])[-1])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'} is damaged or not a timm model folder ({error!r})") from error
    num_classes = int(config.get("num_classes") or cfg["num_classes"])
    state = read_weights(folder / "model.safetensors")
    model_args = dict(config.get("model_args", {}))
    label = own.get("weights", "raw")
    if weights == "before_fix":
        if not own.get("before_fix"):
            raise UserError(f"{folder} does not hold the tensors from before a fix: it was never fixed")
        state.update(read_weights(folder / own["before_fix"]))
        if "img_size" in model_args:
            model_args["img_size"] = own.get("before_fix_size") or train_size
        label, test_size = "before_fix", train_size
    model = models.build(name, num_classes, model_args)
    models.load_strict(model, state, str(folder))
    preprocess = Preprocess(
        size=test_size,
        crop_ratio=float(own.get("crop_ratio") or cfg.get("test_crop_pct") or cfg.get("crop_pct", 0.875)),
        resize=own.get("resize") or _RESIZE_OF_TIMM.get(cfg.get("crop_mode", "center"), "shorter"),
        interpolation=cfg.get("interpolation", "bilinear"),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        exif=own.get("exif", "apply"),
        alpha=own.get("alpha", "white"),
        exact=bool(own.get("exact", False)),
    )
    names = classes or tuple(str(i) for i in range(num_classes))
    return Product(
        model=model.eval(),
        architecture=name,
        classes=names,
        preprocess=preprocess,
        train_size=train_size,
        weights=label,
        model_args={key: value for key, value in model_args.items() if key != "img_size"},
        has_names=bool(classes),
        details=own,
        source=str(folder.absolute()) + ("#before_fix" if weights == "before_fix" else ""),
    )


def _load_file(path: Path, model_name: str | None) -> Product:
    if model_name is None:
        raise UserError(f"{path} is a bare weights file: say which network it is for\n  --model NAME")
    state = read_weights(path)
    model = models.build(model_name, 1000)
    head = models.head_names(model)[0]
    rows = state.get(f"{head}.weight")
    if rows is not None and rows.shape[0] != 1000:
        model = models.build(model_name, int(rows.shape[0]))
    models.load_strict(model, state, str(path))
    statistics = models.input_statistics(model)
    size = models.default_size(model)
    num_classes = int(rows.shape[0]) if rows is not None else 1000
    return Product(
        model=model.eval(),
        architecture=model_name,
        classes=tuple(str(i) for i in range(num_classes)),
        preprocess=Preprocess(
            size=size,
            interpolation=statistics.interpolation,
            mean=statistics.mean,
            std=statistics.std,
        ),
        train_size=size,
        weights="raw",
        model_args={},
        has_names=False,
        details={},
        source=str(path.absolute()),
    )
