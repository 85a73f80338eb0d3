"""Which network and size to start from for a collection of pictures, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fixres.config.loading import validate
from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.evaluation.evaluate import Reading
from fixres.experiments.questions import PictureQuestion
from fixres.io.progress import NamedProgress
from fixres.models.sizes import offer_train_size
from fixres.models.small_networks import named_networks, networks_on_disk
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime
from fixres.training.probe import Probed, ProbeJob, probe, select_of
from fixres.training.probe_cells import CROP_RATIOS, SIZES, Choice, Row, choose, collection_loader


@dataclass(frozen=True)
class PictureAdvice:
    """The object of `advise PHOTOS --json`, and what the probe found."""

    answer: dict[str, Any]
    found: Probed


def advise_pictures(
    pictures: str,
    question: PictureQuestion,
    on_row: Callable[[Row], None] = lambda _: None,
    progress: NamedProgress = lambda *_: None,
) -> PictureAdvice:
    """Probe small networks on a collection and choose one within what a picture may cost.

    Raises:
        UserError: no such collection or network, or nothing measured is within the budget.
    """
    networks = named_networks(question.models) if question.models else networks_on_disk()
    collection = open_collection(Data(uri=pictures))
    runtime = Runtime(RuntimeSettings())
    load = collection_loader(collection)
    sizes = question.sizes or SIZES
    end = time.monotonic() + 60 * question.minutes
    if question.serve_size is not None:
        sizes = (question.serve_size,)
    job = ProbeJob(
        networks,
        collection.split("train"),
        load,
        runtime,
        Reading(workers=resolve_workers("auto"), on_bad_image=question.on_bad_image),
        select=select_of(collection),
        sizes=sizes,
        crop_ratios=question.crop_ratios or CROP_RATIOS,
        seconds_left=lambda: end - time.monotonic(),
        on_row=on_row,
        progress=progress,
    )
    with runtime.stop:
        found = probe(job)
    choice = _within(found, question)
    row = choice.best
    measured = ["train"] if row.how == "cross-validated" else []
    measured += [job.select.name] if job.select is not None else []
    answer = {
        "data": collection.uri,
        "split": "train" if row.how == "cross-validated" else collection.select,
        "how": f"{row.how} on {' and '.join(measured)}",
        "num_classes": len(collection.classes),
        **found.as_dict(),
        "advice": {**row.as_dict(), "why": choice.why},
    }
    if question.serve_size is not None or question.budget_ms is not None:
        stage = validate({"data": {"uri": pictures}}).train
        model, own = load(row.cell.network)
        serve = replace(own, size=row.cell.size, crop_ratio=row.cell.preprocess.crop_ratio)
        exact, size = offer_train_size(model, serve, stage)
        why = f"objects look as large in training at about {exact:.0f} px as in testing at {serve.size} px"
        answer["train_size"] = {"serve_size": serve.size, "exact": exact, "size": size, "why": why}
    return PictureAdvice(answer, found)


def _within(found: Probed, question: PictureQuestion) -> Choice:
    """Return the choice among what may be used; without a budget, the probe's own.

    Raises:
        UserError: nothing measured is within the budget.
    """
    if question.budget_gmacs is None and question.budget_ms is None:
        return found.choice
    measured = [row for row in found.rows if row.losses is not None]
    within = [
        row
        for row in measured
        if (question.budget_gmacs is None or row.cell.gmacs <= question.budget_gmacs)
        and (question.budget_ms is None or (row.ms or 0.0) <= question.budget_ms)
    ]
    if not within:
        least = min(measured, key=lambda row: row.cell.gmacs)
        raise UserError(
            f"nothing measured is within the budget\n  the cheapest is {least.cell}: {least.cell.gmacs:.3f} GMACs, "
            f"{least.ms or 0.0:.1f} ms a picture; raise it, or name smaller sizes with --sizes"
        )
    most = max(row.n for row in within)
    return choose([row for row in within if row.n == most])
