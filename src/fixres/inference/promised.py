"""What a product has promised, ready to be used on pictures: sets of classes, and when to give no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixres.checkpoints.product import Product
from fixres.config.loading import load as load_recipe
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import evaluate, network_views
from fixres.evaluation.measure import answer_of, conditions_of, open_for
from fixres.evaluation.promises import (
    COVERAGES,
    ERROR_RATES,
    SetRule,
    certify,
    images_needed,
    kept_rule,
    probabilities_of,
    reached,
)
from fixres.inference.kept_in_product import keep, require_keeping
from fixres.io.progress import Progress
from fixres.training.product_promises import also_chosen


@dataclass(frozen=True)
class Promises:
    """What a product has promised of pictures prepared as it says, at its test size, with the weights that ship."""

    kept: Mapping[str, Any]
    """What `evaluation.promises.certify` made."""
    classes: Sequence[str]
    source: str

    def sets(self, coverage: float) -> SetRule:
        """Return the rule by which sets hold the right class with probability `coverage` at least.

        Raises:
            UserError: that is not promised.
        """
        _require_kept(coverage, COVERAGES, "coverage")
        return kept_rule(self.kept, self.classes, coverage)

    def abstains_below(self, error_rate: float) -> float:
        """Return the probability below which no answer is given, so that of those given so few are wrong.

        Raises:
            UserError: that is not promised.
        """
        _require_kept(error_rate, ERROR_RATES, "abstain")
        found = self.kept["abstain"][str(error_rate)]
        if found is not None:
            return float(found["threshold"])
        num, confidence = self.kept["num_certifying"], self.kept["confidence"]
        fewest = images_needed(error_rate, confidence)
        able = [rate for rate in ERROR_RATES if self.kept["abstain"][str(rate)] is not None]
        why = f"and none wrong among {fewest} answered ones would be needed" if num < fewest else "and do not show it"
        raise UserError(
            f"{self.source} cannot promise at most {100 * error_rate:g} % of wrong answers with "
            f"{100 * confidence:g} % confidence: {num} pictures of {self.kept['split']} certify, {why}\n  "
            + (f"--abstain {able[0]:g} is promised" if able else "it promises none of the rates it was asked for")
        )


def promises_of(product: Product) -> Promises:
    """Return what a product promises.

    Raises:
        UserError: it promises nothing, or not at this size or with these weights.
    """
    kept: Mapping[str, Any] = product.details.get("promises", {})
    if not kept:
        raise UserError(
            f"{product.source} promises nothing: it was made without, or is no model folder of fixres\n"
            f"  fixres eval {product.source} --promise --save certifies it on its selecting split"
        )
    own = product.details["test_size"]
    if product.weights == "before_fix" or product.preprocess.size != own:
        what = "with the weights from before the fix" if product.weights == "before_fix" else "at another size"
        raise UserError(
            f"{product.source} promises something at {own} px as it ships, not {what}\n  leave "
            f"{'--weights' if product.weights == 'before_fix' else '--size'} out"
        )
    return Promises(kept, product.classes, product.source)


def _require_kept(value: float, allowed: tuple[float, ...], name: str) -> None:
    if value not in allowed:
        raise UserError(f"{name} {value:g}: a product keeps {', '.join(f'{one:g}' for one in allowed)}")


def measure_promises(product: Product, request: SplitRequest, progress: Progress | None = None) -> dict[str, Any]:
    """Certify promises on the selecting split and measure what they come to on the reported one.

    Where these are one split, they are its halves.

    Raises:
        UserError: too few pictures, or whatever `fixres eval` refuses.
    """
    collection = open_for(product, request)
    runtime, reading = conditions_of(product, request)
    choosing, reported = collection.select_and_report(request.split)
    if reported is None:
        raise UserError(
            f"{choosing.name} has {len(choosing)} picture: too few to certify a promise on some and report on others"
        )
    views = network_views(runtime.place(product.model), [product.preprocess])
    found = [evaluate(views, split, runtime, reading, progress, keep_logits=True) for split in (choosing, reported)]
    on_select, on_report = (probabilities_of(one.logits) for one in found)
    name = choosing.name if choosing.name != reported.name else f"one half of {choosing.name}"
    decided = _decided_by(product) if request.data is None and choosing.name == collection.select else []
    kept = {
        "split": name,
        "uri": collection.uri,
        "also_chose": decided,
        **certify(on_select, found[0].labels, product.classes),
    }
    figures = reached(kept, on_report, found[1].labels, product.classes)
    return {
        **answer_of(product, collection, reported, found[1]),
        "results": found[1].results,
        "promises": {**kept, "reached": {"split": reported.name, **figures}},
    }


def _decided_by(product: Product) -> list[str]:
    """Return what the selecting split of a product's own run decided of it."""
    if kept := product.details.get("promises"):
        return list(kept["also_chose"])
    path = product.home / "recipe.yaml" if product.home is not None else None
    return also_chosen(load_recipe(path)) if path is not None and path.is_file() else []


def save_promises(product: Product, found: Mapping[str, Any]) -> Path:
    """Write promises into the product's config.json, for `predict --coverage` and `--abstain`.

    Raises:
        UserError: see `require_keeping`.
    """
    path = require_keeping(product, "--promise --save")
    keep(path, "promises", found["promises"])
    return path
