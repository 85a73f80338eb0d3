"""What a product promises and what it comes to, for people: on the screen and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fixres.evaluation.promises import COVERAGES, ERROR_RATES, images_needed


def promises_in_words(kept: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on what certifies, one for each coverage, and one for each rate of errors."""
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
            why = "too many of them are wrong"
            if kept["num_certifying"] < fewest:
                why = f"no wrong one among {fewest} answered pictures would be needed"
            yield line + f"cannot be promised; {why}"
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
