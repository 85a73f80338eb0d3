"""What is measured of a product and kept in its config.json, for later use of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.io.files import write_text


def require_keeping(product: Product, words: str, model_name: str | None = None) -> Path:
    """Return the config.json that can keep what `fixres eval CKPT WORDS` finds.

    Raises:
        UserError: the product is no folder of ours, or not what such a folder predicts with.
    """
    if product.weights == "before_fix":
        raise UserError(
            "--save keeps what holds for the weights that ship, and these are those from before the fix\n"
            f"  leave --weights out: fixres eval {product.source.removesuffix('#before_fix')} {words}"
        )
    path = Path(product.source) / "config.json"
    if not product.details or not path.is_file():
        named = f" --model {model_name}" if model_name else ""
        raise UserError(
            f"--save keeps something in a model folder that fixres wrote, and {product.source} is none\n"
            f"  fixres import {product.source}{named} --out DIR, then fixres eval DIR --data URI {words}"
        )
    return path


def keep(path: Path, key: str, value: Any) -> None:
    """Write a value into the part of a config.json that is fixres' own."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["fixres"][key] = value
    write_text(path, json.dumps(content, indent=2) + "\n")
