"""Sizes taken together: what `eval --ensemble-sizes` and `eval --cascade` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fixres.errors import UserError

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.evaluation.measure import Request


def eval_together(
    console: Console, product: Product, request: Request, ensemble: Sequence[int], cascade: Sequence[int]
) -> dict[str, Any]:
    """Measure, print tables and a sentence, and return the object for `--json`.

    Raises:
        UserError: both at once, or what the measurement refuses.
    """
    from fixres.inference.cascade import measure_cascade
    from fixres.inference.ensemble import measure_ensemble

    if ensemble and cascade:
        raise UserError("--ensemble-sizes and --cascade are two different things; give one of them")

    def progress(done: int, total: int) -> None:
        console({"event": "progress", "what": "measuring", "done": done, "total": total})

    try:
        if ensemble:
            answer = measure_ensemble(product, ensemble, request, progress)
        else:
            answer = measure_cascade(product, cascade, request, progress)
    finally:
        console.close()
    (_tell_ensemble if ensemble else _tell_cascade)(console, answer)
    return answer


def save(console: Console, product: Product, answer: Mapping[str, Any]) -> None:
    """Keep the cascade in the product, for `predict --cascade`."""
    from fixres.inference.cascade import save_cascade

    console.say(f"kept in {save_cascade(product, dict(answer))}: fixres predict --cascade uses it")


def _tell_ensemble(console: Console, answer: Mapping[str, Any]) -> None:
    from fixres.cli.console import results_table

    ensemble = answer["ensemble"]
    label = "+".join(map(str, ensemble["sizes"]))
    header, rows = results_table([*answer["results"], {**ensemble, "size": label}])
    # Sizes are measured side by side here, so no speed belongs to one of them.
    title = f"{answer['split']} of {answer['data']}, n = {answer['num_images']:,}, {answer['model']}"
    console.table(title, header[:-1], [row[:-1] for row in rows])
    best = answer["against_best"]
    low, high = best["ci95"]
    console.say(
        f"mean of {len(ensemble['sizes'])} sizes minus {best['size']} px alone: {best['difference']:+.2f} points, "
        f"95 % interval {low:+.2f} to {high:+.2f}" + (": not distinguishable" if low <= 0 <= high else "")
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
    console.say(
        f"threshold {found['threshold']:.4f}, chosen on {found['chosen_on']} (n = {found['num_chosen_on']:,}): "
        f"{100 * found['share']:.1f} % of the pictures go on to {large} px"
    )
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
