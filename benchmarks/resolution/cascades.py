"""What a cascade over two sizes gives on every fold: accuracy, work and the difference to the larger size alone.

    python -m benchmarks.resolution.cascades runs/resolution/runs/crops_*/fixed --sizes 64,128

Products with a head for both sizes; each chooses on its own selecting split and is measured on its own test pictures,
which no other fold tests, so differences add up. Prints the curve of share, accuracy and work as well, and what a
guaranteed cascade promises, where enough pictures certify one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fixres.checkpoints.resolve import load
from fixres.evaluation.eval_request import EvalRequest
from fixres.inference.cascade import CascadeRequest, measure_cascade

SHARES = np.linspace(0, 1, 11)
"""Of pictures that go on, at which the curve is printed."""


def pooled(found: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Return the mean difference to the larger size over all pictures, in points, with its 95 % interval."""
    nums = np.array([one["num_images"] for one in found], dtype=np.float64)
    means = np.array([one["difference"] for one in found])
    errors = np.array([(one["ci95"][1] - one["ci95"][0]) / (2 * 1.96) for one in found])
    mean = float((nums * means).sum() / nums.sum())
    reach = 1.96 * float(np.sqrt(((nums * errors) ** 2).sum()) / nums.sum())
    return mean, mean - reach, mean + reach


def row(name: str, folds: Sequence[dict[str, Any]]) -> str:
    """Return a line of the table: every fold's cascade, weighted by its pictures."""
    nums = [one["against_large"]["num_images"] for one in folds]
    top1, ratio, share = (
        np.average([one[key] for one in folds], weights=nums) for key in ("top1", "cost_ratio", "share")
    )
    mean, low, high = pooled([one["against_large"] for one in folds])
    cells = (name, f"{sum(nums):,}", f"{100 * share:.0f} %", f"{top1:.2f}", f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
    return "| " + " | ".join((*cells, f"{ratio:.2f}")) + " |"


def at_shares(folds: Sequence[dict[str, Any]]) -> list[str]:
    """Return the curve, each fold read at its point nearest to a share."""
    nums = [one["against_large"]["num_images"] for one in folds]
    lines = ["| goes on | top-1, % | of the larger size's work |", "| --- | --- | --- |"]
    for share in SHARES:
        points = [min(one["curve"], key=lambda at: abs(at["share"] - share)) for one in folds]
        top1, ratio, reached = (
            np.average([at[key] for at in points], weights=nums) for key in ("top1", "cost_ratio", "share")
        )
        lines.append(f"| {100 * reached:.0f} % | {top1:.2f} | {ratio:.2f} |")
    return lines


def main() -> None:
    """Measure the cascades of all products that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path, nargs="+", help="runs with a head for both sizes, one a fold")
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--harms", type=float, nargs="*", default=(0.02, 0.05), help="shares lost at most, guaranteed")
    asked = parser.parse_args()
    sizes = tuple(int(size) for size in asked.sizes.split(","))
    requests = {"best": CascadeRequest(sizes)}
    requests |= {f"loses at most {100 * harm:g} %": CascadeRequest(sizes, "guaranteed", harm) for harm in asked.harms}
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in requests}
    alone: dict[int, list[tuple[float, int]]] = {size: [] for size in sizes}
    for product in asked.products:
        for name, request in requests.items():
            found = measure_cascade(load(str(product)), request, EvalRequest())
            kept[name].append(found["cascade"])
        for result in found["results"]:
            alone[result["size"]].append((result["top1"], found["cascade"]["against_large"]["num_images"]))
    print("| | n | goes on | top-1, % | minus the larger size, points (95 %) | of its work |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size, rows in alone.items():
        accuracy = np.average([top1 for top1, _ in rows], weights=[num for _, num in rows])
        print(f"| {size} px alone | {sum(num for _, num in rows):,} | | {accuracy:.2f} | | |")
    for name, folds in kept.items():
        certified = [one["guarantee"]["is_certified"] for one in folds if one["guarantee"] is not None]
        print(row(f"{name}, certified in {sum(certified)} of {len(certified)}" if certified else name, folds))
    print("", *at_shares(kept["best"]), sep="\n")


if __name__ == "__main__":
    main()
