"""The arrays that `extract` makes: their shapes, and the rows of a batch, with a head for the classes or without."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from fixres.evaluation.logit_outcomes import image_outcomes
from fixres.io.array_store import Rows

OUTCOME = np.dtype([("prediction", "<i8"), ("rank", "<i8"), ("confidence", "<f8"), ("loss", "<f8"), ("near_tie", "?")])
"""One row of outcomes.npy. `rank`: how many classes come before the label, -1 for a picture that cannot be read."""


def layout_of(
    num_images: int, embedding_size: int, num_classes: int
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of every array. The last one says which rows are kept in the end."""
    embedding, labels = ((num_images, embedding_size), np.dtype("<f4")), ((num_images,), np.dtype("<i8"))
    if not num_classes:
        return {"embedding": embedding, "labels": labels}
    softmax = ((num_images, num_classes), np.dtype("<f4"))
    return {"embedding": embedding, "softmax": softmax, "labels": labels, "outcomes": ((num_images,), OUTCOME)}


def rows_of(logits: Tensor, labels: Tensor, embedding: Tensor, with_head: bool) -> dict[str, np.ndarray]:
    """Return what is stored of a batch; loss and confidence are the ones an evaluation counts."""
    features = embedding.float().cpu().numpy()
    if not with_head:
        return {"embedding": features, "labels": labels.cpu().numpy()}
    found = image_outcomes(logits, labels)
    outcomes = np.empty(len(labels), OUTCOME)
    outcomes["prediction"], outcomes["rank"] = found.predictions.numpy(), found.ranks.numpy()
    outcomes["confidence"], outcomes["loss"] = found.confidences.numpy(), found.losses.numpy()
    outcomes["near_tie"] = found.near_ties.numpy()
    return {
        "embedding": features,
        "softmax": logits.double().log_softmax(1).exp().float().numpy(),
        "outcomes": outcomes,
    }


def write_rows(rows: Rows, batch: int, places: np.ndarray, read: np.ndarray, made: dict[str, np.ndarray]) -> None:
    """Write the rows of a batch; those of pictures that could not be read stay empty, their rank or label -1."""
    inside = np.searchsorted(places, read)
    blocks: dict[str, np.ndarray] = {}
    for name, (shape, kind) in rows.layout.items():
        if name == "labels" and "outcomes" in rows.layout:
            continue
        block = np.zeros((len(places), *shape[1:]), kind)
        if name == "outcomes":
            block["rank"] = -1
        elif name == "labels":
            block[:] = -1
        if name in made:
            block[inside] = made[name]
        blocks[name] = block
    rows.write(batch, int(places[0]), blocks)


def could_be_read(last: np.ndarray) -> np.ndarray:
    """Return bool `[N]` from the last array, outcomes or labels."""
    return (last if last.dtype.names is None else last["rank"]) >= 0
