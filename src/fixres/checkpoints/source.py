"""What names a checkpoint: read before anything heavy is loaded, so that a slip of the pen is answered at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fixres.errors import UserError

KINDS = ("raw", "ema", "before_fix")
"""What may stand after # in a source."""


def weights_and_kind(text: str) -> tuple[str, str]:
    """Split `SOURCE#raw` and the like into the source and which of its weights are meant, `fixed` where none is named.

    What exists under the whole name is that, and a checksum belongs to its address.

    Raises:
        UserError: something else stands after #.
    """
    source, mark, kind = text.rpartition("#")
    is_checksum = text.startswith("url:") and "=" in kind
    if not mark or is_checksum or Path(text).exists():
        return text, "fixed"
    if "/" in kind:
        # A folder's name may have a # in it; that it is not there is said as of any other.
        return text, "fixed"
    if kind not in KINDS:
        raise UserError(f"{text}: after # may stand {', '.join(KINDS)}\n  {source}#{KINDS[0]}")
    return source, kind


def named_weights(source: str, weights: str) -> tuple[str, str]:
    """Return a source without what stands after its #, and which weights that or --weights asks for.

    Raises:
        UserError: the two contradict each other, or something unknown stands after #.
    """
    bare, kind = weights_and_kind(source)
    if kind == "fixed":
        return bare, weights
    if weights not in ("fixed", kind):
        raise UserError(f"{source} asks for the {kind} weights, --weights for {weights}\n  leave one of them out")
    return bare, kind


def is_bare(source: str) -> bool:
    """Return whether a source is weights alone, which do not say what network they are for."""
    path = Path(weights_and_kind(source)[0])
    return source.startswith("url:") or (path.is_file() and path.name != "config.json")


def names_checkpoint(source: str, model_name: str | None = None) -> bool:
    """Return whether a source is meant as a checkpoint, where a collection of pictures may stand, too.

    A run or model folder, a weights file, and what lies elsewhere under a scheme of checkpoints are; so is what is not
    there and has no scheme, so that a mistyped folder is called that.
    """
    if model_name is not None or is_elsewhere(source):
        return True
    bare = weights_and_kind(source)[0]
    path = Path(bare).expanduser()
    if path.is_dir():
        own = ("config.json", "model/config.json", "recipe.yaml", "metrics.jsonl")
        return bare != source or any((path / name).is_file() for name in own)
    return path.is_file() or not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", bare)


def is_elsewhere(source: str) -> bool:
    """Return whether a source names something that is not on this disk under that name."""
    scheme = source.partition(":")[0]
    known = ("timm", "hf-hub", "hf_hub", "fixres", "package", "url")
    return scheme in known and not os.path.exists(source)  # noqa: PTH110 - a Path would fold url:// to url:/


def require_there(source: str) -> None:
    """Refuse a source that is to lie on this disk and does not, or that holds no product.

    Raises:
        UserError: as `resolve.load` would raise it.
    """
    path = Path(weights_and_kind(source)[0])
    if not is_elsewhere(source) and not source.startswith(("http:", "https:")) and not path.is_file():
        product_folder(path)


def require_file(source: str) -> None:
    """Refuse a file of weights that is to lie on this disk and does not.

    Raises:
        UserError: naming it.
    """
    path = Path(weights_and_kind(source)[0])
    if not is_elsewhere(source) and not source.startswith(("http:", "https:")) and not path.exists():
        raise UserError(f"no such file: {path}")


def product_folder(path: Path) -> Path:
    """Return the model folder that a path is, or that the run folder it is holds.

    Raises:
        UserError: it is neither.
    """
    folder = next((f for f in (path / "model", path) if (f / "config.json").is_file()), None)
    if folder is not None:
        return folder
    what = "does not exist" if not path.exists() else "is no model folder"
    if (path / "metrics.jsonl").exists():
        what = "has no product yet: the run has not finished"
    raise UserError(
        f"{path} {what}\n"
        "  give a run folder, a model folder (config.json, model.safetensors), FILE --model NAME,\n"
        "  timm:NAME, hf-hub:NAME, fixres:NAME or url:https://..."
    )
