"""Which labels of a collection are to be looked at: heads on frozen features against what is written down."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from fixres.checkpoints.product import Product
from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.errors import Stopped, UserError
from fixres.evaluation.suspected_labels import suspected_labels
from fixres.io.progress import Progress
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.cross_validation import NUM_FOLDS, cross_validate
from fixres.training.frozen_features import Extractor

_BATCH = 64
_MOST = 40_000_000
"""Pictures times classes whose probabilities fit in memory beside the heads of all folds."""


@dataclass(frozen=True)
class LabelInDoubt:
    """One picture and what its label could be instead."""

    split: str
    path: str
    label: str
    other: str
    """The class that it looks like."""
    probability: float
    """Of the label, by a head that was solved on other pictures."""
    other_probability: float


def labels_in_doubt(
    product: Product, data: Data, runtime: Runtime, workers: int, progress: Progress
) -> list[LabelInDoubt]:
    """Return the pictures whose label others like them contradict, the most suspected first.

    The features are the frozen network's at the product's size; heads are solved on four fifths of all labelled
    pictures of the collection and asked about the fifth. A network that was trained on these very labels has learnt
    some of the mistakes and shows fewer of them.

    Raises:
        UserError: too few pictures of every class, too many pictures times classes, or a network without a head to cut.
        Stopped: a signal came.
    """
    collection = open_collection(data, for_training=False)
    splits = collection.splits
    total = sum(map(len, splits.values()))
    if total * len(collection.classes) > _MOST:
        raise UserError(
            f"{total:,} pictures of {len(collection.classes):,} classes are too many to compare every label with every"
            " class\n  check a part of the collection"
        )
    extractor = Extractor(runtime.place(product.at_test_size().model).eval(), product.preprocess, runtime, _BATCH)
    found: list[torch.Tensor] = []
    seen, done = [], 0
    for name, split in splits.items():
        with closing(evaluation_batches(split, (product.preprocess,), _BATCH, ReadPolicy(workers, "skip"), [])) as read:
            for images, _, indices in read:
                if runtime.stop.received:
                    raise Stopped
                if not found:
                    extractor.prepare(images[0])
                found.append(extractor.features(images[0]))
                seen += [(name, int(index)) for index in indices]
                done += len(indices)
                progress(done, total)
    labels = np.array([splits[name].labels[index] for name, index in seen], dtype=np.int64)
    if not len(labels) or np.bincount(labels).max() < 2:
        raise UserError(f"no class of {collection.uri} has two pictures that can be read: nothing to compare with")
    held = cross_validate(torch.cat(found), torch.from_numpy(labels), len(collection.classes))
    shares = np.asarray(held.logits.softmax(1))
    doubted = suspected_labels(shares, held.labels)
    classes, rows = collection.classes, []
    for place, other in zip(doubted.places.tolist(), doubted.others.tolist(), strict=True):
        name, index = seen[held.places[place]]
        own = int(held.labels[place])
        told = float(shares[place, own]), float(shares[place, other])
        rows.append(LabelInDoubt(name, splits[name].paths[index], classes[own], classes[other], *told))
    return rows


def how(product: Product) -> str:
    """Return how labels were doubted, for people."""
    return (
        f"labels compared with {NUM_FOLDS} heads on frozen features of {product.architecture} at "
        f"{product.preprocess.size} px, each asked about pictures it was not solved on"
    )
