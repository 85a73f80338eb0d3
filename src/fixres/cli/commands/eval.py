"""`fixres eval`: accuracy of a checkpoint at any list of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fixres.checkpoints.feeding_request import given_changes
from fixres.cli.commands.common import CheckpointFlags, open_checkpoint, open_product, write_answer
from fixres.cli.parse import parse_flags
from fixres.config.choices import Count
from fixres.config.stage import Positive
from fixres.errors import UserError, counted, started_rank
from fixres.evaluation.eval_request import EvalRequest

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console

InnerShare = Annotated[float, Field(gt=0, lt=1)]
_WORST = 5
"""Classes shown on the screen with --per-class; the JSON has all."""


@dataclass(frozen=True, kw_only=True)
class EvalFlags(CheckpointFlags, EvalRequest):
    """Flags of `fixres eval`."""

    bootstrap: Count = 1000
    ensemble_sizes: tuple[Positive, ...] = ()
    """Average the probabilities of these sizes, for example 352,384."""
    cascade: tuple[Positive, ...] = ()
    """SMALL,LARGE: the larger size only where it is expected to pay; how is chosen on other pictures."""
    cascade_rule: Literal["best", "guaranteed"] = "best"
    """best: as many right answers as the larger size; guaranteed: at most --harm of the pictures are lost."""
    harm: InnerShare = 0.01
    """With --cascade-rule guaranteed: the share of pictures that the cascade may lose against the larger size."""
    confidence: InnerShare = 0.9
    """With --cascade-rule guaranteed: of the promise."""
    promise: bool = False
    """Certify sets that hold the right class, and answers that are seldom wrong: predict --coverage and --abstain."""
    save: bool = False
    """With --cascade or --promise: keep what was found in the product, for predict."""
    also: tuple[str, ...] = ()
    """Other collections of the same classes, measured too, on their reported splits: what a size gives elsewhere."""
    against: str | None = None
    """Second checkpoint, measured on the same pictures: paired difference and McNemar's exact test."""
    json: Path | None = None
    """Write the result to this file; - for stdout."""
    predictions: Path | None = None
    """Write one row per picture and size to this file, .csv or .parquet."""
    spreadsheet: bool = False
    """With --predictions FILE.csv: write ' before names that begin with = + - or @, which spreadsheets compute."""
    quiet: bool = False
    """Print results only."""


def eval(words: Sequence[str]) -> int:
    """`fixres eval CKPT [--data URI] [--split S] [--sizes 96,128] [--json FILE] [--predictions FILE]`."""
    flags = parse_flags(words, EvalFlags, "fixres eval", "Accuracy of a checkpoint at any list of sizes.")
    from fixres.cli.console import Console
    from fixres.data.test_time_augmentation import parse_corruptions
    from fixres.evaluation.measure import compare_products, measure_product, open_for
    from fixres.evaluation.per_image_table import require_table, require_writable, write_predictions

    if flags.predictions is not None:
        require_table(flags.predictions)
    if flags.spreadsheet and (flags.predictions is None or flags.predictions.suffix.lower() != ".csv"):
        raise UserError("--spreadsheet is about a CSV of predictions\n  add --predictions FILE.csv")
    if flags.json is not None and str(flags.json) != "-":
        require_writable(flags.json)
    if flags.save and not (flags.cascade or flags.promise):
        raise UserError("--save keeps a cascade or promises\n  --cascade SMALL,LARGE --save, or --promise --save")
    if not flags.cascade and flags.cascade_rule != "best":
        raise UserError("--cascade-rule is about a cascade\n  add --cascade SMALL,LARGE")
    if flags.cascade_rule == "best" and (flags.harm, flags.confidence) != (0.01, 0.9):
        raise UserError(
            "--harm and --confidence are of a guarantee\n  add --cascade SMALL,LARGE --cascade-rule guaranteed"
        )
    _check_save(flags)
    # Mistyped corruptions are refused before a network is loaded.
    parse_corruptions(flags.corrupt)
    is_main = started_rank() == 0
    console = Console(flags.quiet or not is_main)
    product = open_checkpoint(console, flags)
    if flags.ensemble_sizes or flags.cascade or flags.promise:
        return _eval_together(console, product, flags)
    other = _open_other(console, flags) if flags.against else None
    own = product.preprocess
    # The size that is measured is worth a line, not one that is not.
    size = flags.sizes[0] if flags.sizes and own.size not in flags.sizes else own.size
    console.preprocessing(own.at(size), product.source)
    if other is not None:
        console.preprocessing(other.preprocess, other.source)

    elsewhere = [replace(flags, data=uri, split=None) for uri in flags.also]
    for request in elsewhere:
        # A collection that cannot be measured is told before minutes are spent on another.
        open_for(product, request)
    with closing(console):
        if other is None:
            measured = measure_product(product, flags, console.bar("measuring"))
        else:
            measured = compare_products(product, other, flags, console.bar("measuring"))
        others = [measure_product(product, request, console.bar("measuring")) for request in elsewhere]
        also = [one.answer for one in others]
    if not is_main:
        return 0
    if also:
        measured.answer["also"] = also
    _show(console, measured.answer, flags)
    for answer in also:
        _show(console, answer, flags)
    if also:
        _show_sizes_elsewhere(console, [measured.answer, *also])
    remarks = list(measured.remarks)
    for one in others:
        # A repeated figure is no news of another collection.
        remarks += [line for line in one.remarks if "repeats the logged result" not in line]
    for line in dict.fromkeys(remarks):
        (console.warn if line.startswith("warning: ") else console.say)(line.removeprefix("warning: "))
    write_answer(flags.json, measured.answer)
    if flags.predictions is not None:
        classes = measured.split.classes if product.are_names_assumed else product.classes
        write_predictions(flags.predictions, measured.found, measured.split, classes, flags.spreadsheet)
    return 0


def _open_other(console: Console, flags: EvalFlags) -> Product:
    """Open what the checkpoint is measured against; of weights that say neither, network and feeding are the same."""
    from fixres.checkpoints.source import is_bare

    assert flags.against is not None
    if not is_bare(flags.against):
        return open_product(console, flags.against)
    return open_product(console, flags.against, model=flags.model, feeding=flags)


def _check_save(flags: EvalFlags) -> None:
    """Refuse to keep a threshold that belongs to another preprocessing than the product's own."""
    given = given_changes(flags)
    if flags.save and given:
        raise UserError(
            f"--save does not go with {' and '.join(given)}: predict --cascade prepares pictures as the product says, "
            f"and the threshold would not be for those\n  leave out --save, or {' and '.join(given)}"
        )


def _eval_together(console: Console, product: Product, flags: EvalFlags) -> int:
    from fixres.evaluation.promises_in_words import promises_in_words
    from fixres.inference.cascade import CascadeRequest, measure_cascade, save_cascade, save_words
    from fixres.inference.ensemble import measure_ensemble
    from fixres.inference.kept_in_product import require_keeping
    from fixres.inference.promised import measure_promises, save_promises

    ways = {"--ensemble-sizes": flags.ensemble_sizes, "--cascade": flags.cascade, "--promise": flags.promise}
    asked = [name for name, value in ways.items() if value]
    alone = (
        "sizes",
        "also",
        "predictions",
        "against",
        "tta",
        "corrupt",
        "calibrate",
        "per_class",
        "confusion",
        "backend",
    )
    defaults = EvalFlags(checkpoint="")
    given = [f"--{name.replace('_', '-')}" for name in alone if getattr(flags, name) != getattr(defaults, name)]
    if given:
        raise UserError(f"{' and '.join(given)} do not go with {' and '.join(asked)}")
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different things; give one of them")
    cascade = CascadeRequest(flags.cascade, flags.cascade_rule, flags.harm, flags.confidence, flags.save)
    if flags.save:
        # A sweep whose outcome cannot be kept is minutes lost.
        words = save_words(cascade) if flags.cascade else "--promise --save"
        require_keeping(product, words, flags.model)
    console.preprocessing(product.preprocess, product.source)
    progress = console.bar("measuring")
    with closing(console):
        if flags.cascade:
            answer = measure_cascade(product, cascade, flags, progress)
        elif flags.promise:
            answer = measure_promises(product, flags, progress)
        else:
            answer = measure_ensemble(product, flags.ensemble_sizes, flags, progress)
    if started_rank():
        # One process tells and keeps what all of them measured.
        return 0
    if flags.promise:
        for line in promises_in_words(answer["promises"]):
            console.say(line)
    else:
        (_tell_cascade if flags.cascade else _tell_ensemble)(console, answer)
    if flags.save and flags.cascade:
        console.say(f"kept in {save_cascade(product, cascade, answer)}: fixres predict --cascade uses it")
    elif flags.save:
        path = save_promises(product, answer)
        console.say(f"kept in {path}: fixres predict --coverage 0.9 and --abstain 0.05 use it")
    write_answer(flags.json, answer)
    return 0


def _show(console: Console, answer: Mapping[str, Any], flags: EvalFlags) -> None:
    from fixres.cli.console import results_table

    results = answer["results"]
    labels = [result.get("corruption") or "as they are" for result in results] if flags.corrupt else None
    how = "" if flags.tta == "none" else f", mean of --tta {flags.tta}"
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}{how}"
    console.table(title, *results_table(results, labels, answer["num_classes"], answer["imbalance"]))
    for result in results:
        where = f"{result['size']} px" + (f", {result['corruption']}" if result.get("corruption") else "")
        line = f"{where}: balanced accuracy {result['balanced_accuracy']:.2f} %, macro-F1 {result['macro_f1']:.2f} %"
        if "temperature" in result:
            line += (
                f"; temperature {result['temperature']:.3f}: ECE {result['ece']:.4f} becomes "
                f"{result['ece_calibrated']:.4f}, loss {result['loss']:.4f} becomes {result['loss_calibrated']:.4f}"
            )
        console.say(line)
        if flags.per_class:
            _show_classes(console, where, result["per_class"])
    if "against" in answer:
        _show_comparison(console, answer)


def _show_sizes_elsewhere(console: Console, answers: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each row: top-1 on every collection, and what it is more than in the first row."""
    first = [answer["results"][0]["top1"] for answer in answers]
    rows = []
    for row, results in enumerate(zip(*(answer["results"] for answer in answers), strict=True)):
        cells = [
            f"{result['top1']:.2f}" + (f" ({result['top1'] - start:+.1f})" if row else "")
            for result, start in zip(results, first, strict=True)
        ]
        name = f"{results[0]['size']} px" + (f", {results[0]['corruption']}" if results[0].get("corruption") else "")
        rows.append([name, *cells])
    header = [f"{answer['split']} of {answer['data']}" for answer in answers]
    console.table("top-1 %, and points more than in the first row", ["", *header], rows)


def _show_classes(console: Console, where: str, table: Sequence[Mapping[str, Any]]) -> None:
    def words(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    seen = [row for row in table if row["num_images"]]
    worst = sorted(seen, key=lambda row: (row["recall"], row["name"]))[: len(table) if len(table) <= 20 else _WORST]
    title = f"{where}: classes by recall" + ("" if len(worst) == len(seen) else f", the {len(worst)} worst")
    rows = [
        [row["name"], str(row["num_images"]), words(row["recall"]), words(row["precision"]), words(row["f1"])]
        for row in worst
    ]
    console.table(title, ["", "n", "recall %", "precision %", "F1 %"], rows)


def _show_comparison(console: Console, answer: Mapping[str, Any]) -> None:
    from fixres.reporting.number_format import p_value

    for pair, result in zip(answer["against"]["paired"], answer["against"]["results"], strict=True):
        low, high = pair["ci95"]
        close = low <= 0 <= high or pair["p_value"] >= 0.05
        console.say(
            f"{pair['size']} px against {answer['against']['checkpoint']} at {pair['against_size']} px "
            f"({result['top1']:.2f} %): {pair['difference']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} "
            f"(better on {counted(pair['num_better'], 'picture')}, worse on {pair['num_worse']}, McNemar's exact "
            f"{p_value(pair['p_value'])})" + (": not distinguishable" if close else "")
        )


def _tell_ensemble(console: Console, answer: Mapping[str, Any]) -> None:
    from fixres.cli.console import results_table

    ensemble = answer["ensemble"]
    label = "+".join(map(str, ensemble["sizes"]))
    header, rows = results_table(
        [*answer["results"], {**ensemble, "size": label}], None, answer["num_classes"], answer["imbalance"]
    )
    # Sizes are measured side by side here, so no speed belongs to one of them.
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}"
    console.table(title, header[:-1], [row[:-1] for row in rows])
    best = answer["against_best"]
    low, high = best["ci95"]
    console.say(
        f"mean of {len(ensemble['sizes'])} sizes minus {best['size']} px alone: {best['difference']:+.2f} points, "
        f"95 % interval {low:+.2f} to {high:+.2f}" + (": not distinguishable" if low <= 0 <= high else "")
    )


def _guarantee_in_words(told: Mapping[str, Any], large: int) -> str:
    promise = f"at most {100 * told['harm']:g} % of the pictures lost against {large} px, with "
    promise += f"{100 * told['confidence']:g} % confidence, given the network"
    if told["is_certified"]:
        return f"guaranteed: {promise}: {told['num_harms']} of {told['num_certifying']:,} certifying pictures are lost"
    return (
        f"too few pictures to promise {promise}: {told['num_certifying']:,} certify, {told['num_needed']:,} without a "
        "loss would be needed; every picture goes on"
    )


def _tell_cascade(console: Console, answer: Mapping[str, Any]) -> None:
    found = answer["cascade"]
    small, large = found["sizes"]
    console.say(found["weights_why"])
    rows = [
        [f"{small} px alone", f"{answer['results'][0]['top1']:.2f}", f"{answer['results'][0]['gmacs']:.3f}", ""],
        [f"{large} px alone", f"{answer['results'][1]['top1']:.2f}", f"{answer['results'][1]['gmacs']:.3f}", "1.00"],
        ["cascade", f"{found['top1']:.2f}", f"{found['gmacs']:.3f}", f"{found['cost_ratio']:.2f}"],
    ]
    rows[0][3] = f"{answer['results'][0]['gmacs'] / answer['results'][1]['gmacs']:.2f}"
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}"
    console.table(title, ["", "top-1 %", "GMACs", f"of {large} px"], rows)
    by = found["deferral"]["by"]
    what = "best probability below" if by == "confidence" else "expected gain above"
    joined = found["deferral"]["small_weight"]
    answer_of_both = f"; then {joined:.1f} of the answer is that of {small} px" if joined else ""
    console.say(
        f"{what} {found['threshold']:.4f}, chosen on {found['chosen_on']} (n = {found['num_chosen_on']:,}): "
        f"{100 * found['share']:.1f} % of the pictures go on to {large} px{answer_of_both}"
    )
    if found["guarantee"] is not None:
        console.say(_guarantee_in_words(found["guarantee"], large))
    paired = found["against_large"]
    low, high = paired["ci95"]
    verdict = "contains 0 or more" if found["is_as_good"] else "lies below 0: the cascade is worse"
    console.say(
        f"cascade minus {large} px: {paired['difference']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, which "
        f"{verdict}; {found['cost_ratio']:.2f} of its work (aim: {found['aim']:g})"
    )
    if not found["is_reached"]:
        curve = []
        for point in found["curve"]:
            costs = [f"{point['top1']:.2f}", f"{point['gmacs']:.3f}", f"{point['cost_ratio']:.2f}"]
            curve.append([f"{point['threshold']:.4f}", f"{100 * point['share']:.0f}", *costs])
        console.table(
            f"the aim is not reached; what every threshold gives on {answer['split']}",
            ["threshold", "go on, %", "top-1 %", "GMACs", f"of {large} px"],
            curve,
        )
