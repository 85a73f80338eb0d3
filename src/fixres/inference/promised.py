"""What a product has promised, ready to be used on pictures: sets of classes, and when to give no answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fixres.checkpoints.product import Product
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


def rule_of_sets(product: Product, coverage: float) -> SetRule:
    """Return the rule by which a product's sets hold the right class with probability `coverage` at least.

    Raises:
        UserError: the product promises nothing, or not that.
    """
    kept = _promises_of(product)
    _require_kept(coverage, COVERAGES, "--coverage")
    return kept_rule(kept, product.classes, coverage)


def abstains_below(product: Product, error_rate: float) -> float:
    """Return the probability below which a product gives no answer, so that of those given so few are wrong.

    Raises:
        UserError: the product promises nothing, or not that.
    """
    kept = _promises_of(product)
    _require_kept(error_rate, ERROR_RATES, "--abstain")
    found = kept["abstain"][str(error_rate)]
    if found is None:
        num, confidence = kept["num_certifying"], kept["confidence"]
        fewest = images_needed(error_rate, confidence)
        able = [rate for rate in ERROR_RATES if kept["abstain"][str(rate)] is not None]
        raise UserError(
            f"{product.source} cannot promise at most {100 * error_rate:g} % of wrong answers with "
            f"{100 * confidence:g} % confidence: {num} pictures of {kept['split']} certify it, and none wrong among "
            f"{fewest} answered ones would be needed\n  "
            + (f"--abstain {able[0]:g} is promised" if able else "it promises none of the rates it was asked for")
        )
    return float(found["threshold"])


def _promises_of(product: Product) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = product.details.get("promises", {})
    if not kept:
        raise UserError(
            f"{product.source} promises nothing: it was made without, or is no model folder of fixres\n"
            f"  fixres eval {product.source} --promise --save certifies one on its selecting split"
        )
    own = product.details["test_size"]
    if product.weights == "before_fix" or product.preprocess.size != own:
        what = "with the weights from before the fix" if product.weights == "before_fix" else "at another size"
        raise UserError(
            f"{product.source} promises something at {own} px as it ships, not {what}\n  leave "
            f"{'--weights' if product.weights == 'before_fix' else '--size'} out"
        )
    return kept


def _require_kept(value: float, allowed: tuple[float, ...], flag: str) -> None:
    if value not in allowed:
        raise UserError(f"{flag} {value:g}: a product keeps {', '.join(f'{one:g}' for one in allowed)}")


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
    kept = {"split": name, "also_chose": [], **certify(on_select, found[0].labels, product.classes)}
    figures = reached(kept, on_report, found[1].labels, product.classes)
    return {
        **answer_of(product, collection, reported, found[1]),
        "results": found[1].results,
        "promises": {**kept, "reached": {"split": reported.name, **figures}},
    }


def save_promises(product: Product, found: Mapping[str, Any]) -> Path:
    """Write promises into the product's config.json, for `predict --coverage` and `--abstain`.

    Raises:
        UserError: see `require_keeping`.
    """
    path = require_keeping(product, "--promise --save")
    keep(path, "promises", found["promises"])
    return path


def promises_in_words(kept: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a product promises and what it comes to, line by line, for people."""
    given = f"{kept['num_certifying']:,} pictures of {kept['split']} certify"
    if kept["also_chose"]:
        given += f"; the promises are given the network: {kept['split']} also decided {_listed(kept['also_chose'])}"
    yield given
    told = kept.get("reached")
    where = f" ({told['split']}, n = {told['num_images']:,})" if told else ""
    for coverage in COVERAGES:
        line = f"sets that hold the right class for {100 * coverage:g} %"
        if told:
            found = told["coverage"][str(coverage)]
            low, high = found["covered_ci95"]
            line += f": {found['covered']:.1f} % do (95 % interval {low:.1f} to {high:.1f}){where}, "
            line += f"{found['mean_size']:.2f} classes a picture"
        own = len(kept["coverage"][str(coverage)]["own"])
        if own:
            line += f"; {own} {'class is' if own == 1 else 'classes are'} certified one by one"
        yield line
    for rate in ERROR_RATES:
        certified = kept["abstain"][str(rate)]
        line = f"answers of which at most {100 * rate:g} % are wrong, with {100 * kept['confidence']:g} % confidence: "
        if certified is None:
            fewest = images_needed(rate, kept["confidence"])
            yield line + f"cannot be promised; no wrong one among {fewest} answered pictures would be needed"
            continue
        line += f"above p = {certified['threshold']:.4f}"
        if told:
            found = told["abstain"][str(rate)]
            line += f"; {found['answered']:.1f} % are answered"
            if found["wrong"] is not None:
                low, high = found["wrong_ci95"]
                line += f", of which {found['wrong']:.1f} % wrong (95 % interval {low:.1f} to {high:.1f}){where}"
        yield line


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
