"""The sentence on top: what came out, never stronger than the paired interval allows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fixres.errors import counted
from fixres.reporting.number_format import duration, figures, interval, p_value, percent, points
from fixres.reporting.run_record import Comparison, Json, Record, number
from fixres.reporting.shipping_table import WHAT, shipping
from fixres.training.train_size_control import CONTROL

_ENDED = {"failed": "failed", "stopped": "was stopped", "killed": "was killed"}
"""What became of a run that ended without a result, by its state."""

Verdict = Literal["better", "worse", "open", "none"]


@dataclass(frozen=True)
class Headline:
    """`verdict`: better or worse when the paired interval excludes 0, open when it contains 0, none without a test."""

    verdict: Verdict
    badge: str
    sentence: str
    detail: str


def headline(record: Record) -> Headline:
    """Return what to say first about one run."""
    comparison = record.comparison
    if comparison is None:
        return _without_comparison(record)
    chosen = comparison.shipped
    if chosen is not None and chosen.get("label") != "fixed":
        return _chosen(record, comparison, chosen)
    fixed = comparison.row("fixed")
    if fixed is None or not record.has_fix:
        return _without_fix(record, comparison)
    return _fixed(record, comparison, fixed)


def verdict_of(paired: Json) -> Verdict:
    """Return what a paired difference allows to say."""
    bounds = paired.get("ci95")
    if not bounds or any(number(bound) is None for bound in bounds):
        return "none"
    low, high = bounds
    p_value = number(paired.get("p_value"))
    if p_value is not None and p_value >= 0.05:
        # On a few pictures the interval, an approximation, can exclude 0 where the exact test does not.
        return "open"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "open"


def repeats_headline(records: Sequence[Record]) -> Headline | None:
    """Return the sentence about one recipe repeated with several seeds, when every run has a paired difference."""
    comparisons = [record.comparison for record in records]
    differences = [number(c.paired.get("difference")) for c in comparisons if c is not None]
    known = [difference for difference in differences if difference is not None]
    if len(known) != len(records) or len(known) < 2:
        return None
    mean, spread = statistics.mean(known), statistics.stdev(known)
    num_decided = sum(verdict_of(c.paired) in ("better", "worse") for c in comparisons if c is not None)
    return Headline(
        "none",
        f"n = {len(known)}",
        f"Over {len(known)} seeds, fixing changes accuracy by {points(mean)} ± {spread:.1f} points.",
        f"Mean and standard deviation over seeds of the paired difference, fixed minus train size: "
        f"{', '.join(points(difference) for difference in known)}. "
        f"In {num_decided} of {len(known)} runs the run's own 95 % interval excludes 0."
        + _split_over_seeds(comparisons),
    )


def _split_over_seeds(comparisons: Sequence[Comparison | None]) -> str:
    parts = []
    for row, minus in ((CONTROL, "train size"), ("fixed", CONTROL)):
        found = [number(c.difference(row, minus).get("difference")) for c in comparisons if c is not None]
        known = [difference for difference in found if difference is not None]
        if len(known) < len(comparisons):
            return ""
        parts.append(f"{points(statistics.mean(known))} ± {statistics.stdev(known):.1f}")
    return f" Solving the head again at the train size gains {parts[0]} of it, the size {parts[1]}."


def _fixed(record: Record, comparison: Comparison, fixed: Json) -> Headline:
    if comparison.has_new_head:
        return _on_frozen_features(record, comparison, fixed)
    before = comparison.row("train size") or comparison.rows[0]
    difference = number(comparison.paired.get("difference"))
    opening = f"Fixed at {fixed.get('size')} pixels, the network is right on {_share(comparison, fixed)}"
    verdict = verdict_of(comparison.paired)
    if verdict == "none" or difference is None:
        sentence = f"{opening}; at its training size, on {percent(before.get('top1'))} %."
        return Headline("none", "", sentence, "No paired test was logged, so the two numbers stand side by side.")
    bounds = interval(comparison.paired["ci95"], is_signed=True)
    zero = ", which contains 0" if verdict == "open" else ""
    detail = f"Paired 95 % interval of the difference: {bounds} points{zero}{_counts(comparison.paired)}."
    larger = comparison.row("larger size only")
    if larger is not None:
        detail += f" The larger size alone, without the fix, reaches {percent(larger.get('top1'))} %"
        against = comparison.difference("fixed", "larger size only")
        detail += f"; fixed minus that: {gain(against)}." if against else "."
    split = split_of_gain(comparison)
    if verdict == "open":
        sentence = f"{opening}, against {percent(before.get('top1'))} % at its training size: not distinguishable."
    else:
        more = "more" if verdict == "better" else "fewer"
        sentence = f"{opening}, {percent(abs(difference))} points {more} than at its training size."
    return Headline(verdict, f"{points(difference)} points", f"{sentence} {split}".rstrip(), detail)


def split_of_gain(comparison: Comparison) -> str:
    """Return how much of a fix comes from solving the head again and how much from the size; empty in older runs."""
    head, size = comparison.difference(CONTROL, "train size"), comparison.difference("fixed", CONTROL)
    if head and size:
        return f"Solving the head again at the train size gains {gain(head)}, the size {gain(size)}."
    sizes = [(comparison.row(label) or {}).get("size") for label in ("train size", "fixed")]
    if not comparison.control or comparison.row(CONTROL) is not None:
        return ""
    if sizes[0] == sizes[1]:
        return "All of it comes from solving the head again: the test size is the train size."
    return f"What the size alone gains is not measured: {comparison.control}."


def gain(paired: Json) -> str:
    """Return a paired difference in points with its 95 % interval."""
    return f"{points(paired['difference'])} ({interval(paired['ci95'], is_signed=True)})"


def _on_frozen_features(record: Record, comparison: Comparison, fixed: Json) -> Headline:
    """Return what to say where the head began random: nothing came before that it could be compared with."""
    control = comparison.row(CONTROL)
    sentence = (
        f"A head on the frozen features of {record.model or 'the network'} at {fixed.get('size')} pixels is right on "
        f"{_share(comparison, fixed)}."
    )
    detail = f"95 % interval: {interval(fixed.get('top1_ci95'))}. The network itself was not trained on these pictures."
    size = comparison.difference("fixed", CONTROL)
    if control is None or not size:
        return Headline("none", "", sentence, detail)
    detail += (
        f" At {control.get('size')} pixels such a head reaches {percent(control.get('top1'))} %; "
        f"{fixed.get('size')} pixels minus that: {gain(size)} points{_counts(size)}."
    )
    return Headline(verdict_of(size), f"{points(size['difference'])} points by the size", sentence, detail)


def _share(comparison: Comparison, row: Json) -> str:
    return f"{percent(row.get('top1'))} % of {counted(comparison.num_images, f'{comparison.split} picture')}"


def _counts(paired: Json) -> str:
    parts = []
    if isinstance(paired.get("num_better"), int) and isinstance(paired.get("num_worse"), int):
        parts.append(f"{paired['num_better']} became right, {paired['num_worse']} became wrong")
    if number(paired.get("p_value")) is not None:
        parts.append(p_value(paired["p_value"]))
    return "".join(f"; {part}" for part in parts)


def _without_fix(record: Record, comparison: Comparison) -> Headline:
    row = next((row for row in comparison.rows if row.get("size") == record.test_size), comparison.rows[-1])
    return Headline(
        "none",
        "",
        f"At {row.get('size')} pixels, the network is right on {percent(row.get('top1'))} % of "
        f"{counted(comparison.num_images, f'{comparison.split} picture')}.",
        f"95 % interval: {interval(row.get('top1_ci95'))}. "
        "This run has no fix stage: `fixres fix RUN --size auto` adds one.",
    )


def _chosen(record: Record, comparison: Comparison, chosen: Json) -> Headline:
    """Say which of a run's candidates ships, where it is not the fixed network."""
    shown = shipping(record) or {"candidates": [], "split": "the selecting split"}
    what = next((WHAT[row["kind"]] for row in shown["candidates"] if row.get("is_shipped")), "the one that was chosen")
    return Headline(
        "none",
        "",
        f"At {chosen.get('size')} pixels, the network that ships is right on {percent(chosen.get('top1'))} % of "
        f"{counted(comparison.num_images, f'{comparison.split} picture')}.",
        f"95 % interval: {interval(chosen.get('top1_ci95'))}. It is {what}, chosen on {shown['split']} among "
        f"{counted(len(shown['candidates']), 'candidate')}.",
    )


def _without_comparison(record: Record) -> Headline:
    done = record.last("done")
    last_eval = record.last("eval")
    if done:
        opening = f"The run ended after {duration(done.get('seconds'))} without a measurement on the report split."
    elif record.state in _ENDED:
        opening = f"The run {_ENDED[record.state]} before its result was measured."
    else:
        opening = "The run is not finished: there is no result on the report split yet."
    if not last_eval or not last_eval.get("results"):
        return Headline("none", "", opening, "No evaluation has been logged.")
    result = last_eval["results"][-1]
    return Headline(
        "none",
        "",
        opening,
        f"Last measured: {percent(result.get('top1'))} % on {last_eval.get('split')} at {result.get('size')} pixels"
        f" after epoch {figures(last_eval.get('epoch'))} of stage {last_eval.get('stage')}.",
    )
