"""Why a fix works, from what the run measured: pooled activations against size, and how much of a picture is seen."""

from __future__ import annotations

from fixres.evaluation.activation_statistics import FILE
from fixres.reporting import charts as plots
from fixres.reporting.charts import Curve
from fixres.reporting.run_record import Json, Record, number, read_json
from fixres.reporting.sections import size_marks


def measured(record: Record) -> Json | None:
    """Return the run's activations.json; None where there is none that can be read."""
    found = read_json(record.folder / FILE)
    return found if isinstance(found, dict) else None


def why(record: Record) -> Json | None:
    """Return what the section shows; None for a run that was not fixed, or is older than the measurement."""
    found = measured(record)
    if found is None:
        return None
    try:
        before, fixed = (sorted(found[key], key=lambda row: row["size"]) for key in ("before", "fixed"))
        at_train = next(row for row in before if row["size"] == record.train_size)
        at_test = next(row for row in before if row["size"] == record.test_size)
        after = next(row for row in fixed if row["size"] == record.test_size)
        seen = found["seen"]
        shares = (number(seen["train"]), number(seen["test"]))
    except (KeyError, TypeError, StopIteration):
        return None
    marks = size_marks(record)
    curves = [Curve("before", before, "before"), Curve("fixed", fixed, "after", is_dashed=True)]
    charts = [("spread", "Spread of what the head is given (standard deviation)")]
    has_zeros = any(row["zeros"] for row in before)
    if has_zeros:
        charts.insert(0, ("zeros", "Zeros in what the head is given, percent"))
    return {
        "num_images": found["num_images"],
        "split": found["split"],
        "charts": [
            {"title": title, "svg": plots.quantity_against_size(curves, key, marks, f"{title}, against size")}
            for key, title in charts
        ],
        "seen": "" if None in shares else _seen(*shares),
        "told": _told(record, at_train, at_test, after, has_zeros),
    }


def _seen(train: float | None, test: float | None) -> str:
    return (
        f"In training a random crop shows the network {train:.0f} % of a picture on average, in testing the crop shows "
        f"{test:.0f} %: the more of it is shown at one size, the smaller the objects."
    )


def _told(record: Record, at_train: Json, at_test: Json, after: Json, has_zeros: bool) -> str:
    if record.test_size == record.train_size:
        return f"The fix kept the train size: spread {at_train['spread']:.3g} before, {after['spread']:.3g} after."
    zeros = f", share of zeros {at_train['zeros']:.1f} and {at_test['zeros']:.1f} %" if has_zeros else ""
    return (
        f"Pooling over a map of another size changes what the head is given: from {record.train_size} to "
        f"{record.test_size} px its spread goes from {at_train['spread']:.3g} to {at_test['spread']:.3g}{zeros}; "
        f"{at_test['large']:.1f} % lie above the value that 1 % exceed at the train size. After the fix the spread at "
        f"{record.test_size} px is {after['spread']:.3g}, and the head has learnt from what it is given there."
    )
