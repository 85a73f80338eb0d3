"""How often the products of `ours.py` keep what they promise, on the test pictures of every fold.

    python -m benchmarks.own_pictures.promised runs/own/elpv/answers/runs/*-fold-*

Each run's product was measured on its fold's test pictures when it was made; here the folds are added up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def reached(run: Path) -> dict[str, Any] | None:
    """Return what a run's product reached; None where it promises nothing."""
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    promises = config["fixres"].get("promises")
    return promises.get("reached") if promises else None


def main() -> None:
    """Print promised and reached shares over all runs that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    asked = parser.parse_args()
    found = [one for run in asked.runs if (run / "model" / "config.json").is_file() and (one := reached(run))]
    if not found:
        raise SystemExit("none of these runs has a product that promises anything")
    total = sum(one["num_images"] for one in found)
    print(f"{len(found)} products, {total:,} test pictures")
    for level in found[0]["coverage"]:
        rows = [(one["coverage"][level], one["num_images"]) for one in found if one["coverage"][level]]
        num = sum(n for _, n in rows)
        covered = sum(row["covered"] * n for row, n in rows) / num
        size = sum(row["mean_size"] * n for row, n in rows) / num
        least = min(row["covered"] for row, _ in rows)
        print(
            f"sets that hold the right class for {level}: {covered:.1f} %, at least {least:.1f} %; {size:.2f} classes"
        )
    for level in found[0]["abstain"]:
        given = [(one["abstain"][level], one["num_images"]) for one in found if one["abstain"][level]["answered"]]
        answered = sum(row["answered"] * n / 100 for row, n in given)
        wrong = sum(row["answered"] * row["wrong"] * n / 1e4 for row, n in given)
        said = (
            f"{100 * wrong / answered:.2f} % wrong of {answered:,.0f} answered"
            if answered
            else "no product promises it"
        )
        print(f"at most {level} wrong: {len(given)} products promise it; {said}, of {total:,}")


if __name__ == "__main__":
    main()
