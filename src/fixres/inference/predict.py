"""Names and probabilities for pictures, through the product's own preprocessing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fixres.checkpoints.product import Product
from fixres.config.choices import BackendName
from fixres.data.unlabelled import Batch, Picture, Pictures, picture_batches
from fixres.evaluation.evaluate import Forward
from fixres.evaluation.promises import SetRule
from fixres.runtime.device import Runtime

__all__ = ["Picture", "Pictures", "Prediction", "Predictor"]


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture, best first, or why it could not be read."""

    path: str
    top: tuple[tuple[str, float], ...]
    """(class name, probability)."""
    size: int
    error: str = ""
    said: tuple[str, ...] = ()
    """What people call the classes of `top`; the names themselves where they are words."""
    unsure: bool | None = None
    """Whether the best probability is below the threshold; None without one, or for what cannot be read."""
    inside: tuple[str, ...] | None = None
    """Classes promised to hold the right one, best first; None without a promise, or for what cannot be read."""
    flaw: str = ""
    """What is wrong with a file that could be decoded all the same."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of `predict --format json`."""
        fields: dict[str, Any] = {
            "path": self.path,
            "size": self.size,
            "top": [
                {"name": name, **({"description": said} if said != name else {}), "probability": probability}
                for (name, probability), said in zip(self.top, self.said, strict=True)
            ],
        }
        if self.inside is not None:
            fields["set"] = list(self.inside)
        if self.unsure is not None:
            fields["unsure"] = self.unsure
        return {**fields, "error": self.error} if self.error else fields


class Predictor:
    """Applies a product to pictures of any kind a user has."""

    def __init__(
        self,
        product: Product,
        runtime: Runtime,
        top_k: int = 5,
        batch_size: int = 16,
        *,
        workers: int = 0,
        threshold: float | None = None,
        backend: BackendName = "torch",
    ) -> None:
        """Place the network.

        Args:
            product: the network and how it is fed.
            runtime: where it computes.
            top_k: classes to name, at most all of them.
            batch_size: pictures computed at once.
            workers: processes that read pictures; with any, pictures are taken a few batches ahead.
            threshold: best probability below which a prediction is called unsure.
            backend: who computes; anything but `torch` is compared with it on the first pictures.
        """
        self.product = product
        self.runtime = runtime
        self.model = runtime.place(product.model).eval()
        self.top_k = min(top_k, len(product.classes))
        self.batch_size = batch_size
        self.workers = workers
        self.threshold = threshold
        self.sets: SetRule | None = None
        """By which rule predictions say which classes hold the right one; None: they do not."""
        self._forward = Forward(self.model, product.preprocess, runtime, 0, backend)

    def __call__(self, pictures: Iterable[Picture], shape: int = 0) -> Iterator[Prediction]:
        """Yield one prediction per picture, in order, reading `batch_size` at a time.

        Pictures are paths, bytes of a file, PIL images or uint8 arrays `[H, W, 3]` or `[H, W]`. One that cannot be
        read yields a prediction with `error` set; the rest go on. Batches are padded to at least `shape` pictures,
        which a list that is gone on with needs for the same last bits.
        """
        for batch in picture_batches(pictures, self.product.preprocess, self.batch_size, self.workers):
            # The last batch of many is padded to the shape of the others; a few pictures need not pay for a full one.
            shape = max(shape, len(batch.names))
            yield from self._predict(batch, shape)

    def _predict(self, batch: Batch, shape: int) -> list[Prediction]:
        product, size = self.product, self.product.preprocess.size
        found = {place: Prediction(batch.names[place], (), size, error) for place, error in batch.errors.items()}
        if batch.places:
            self._forward.shape = shape
            logits = self._forward([batch.images])
            shares = logits.double().softmax(1)
            values, indices = shares.sort(dim=1, descending=True, stable=True)
            best = zip(values[:, : self.top_k].tolist(), indices[:, : self.top_k].tolist(), strict=True)
            sets: Sequence[tuple[str, ...] | None] = [None] * len(batch.places)
            if self.sets is not None:
                inside = torch.from_numpy(self.sets.sets(shares.cpu().numpy())).gather(1, indices.cpu())
                sets = [
                    tuple(product.classes[k] for k in row[own].tolist())
                    for row, own in zip(indices.cpu(), inside, strict=True)
                ]
            for place, (probabilities, classes), own in zip(batch.places, best, sets, strict=True):
                found[place] = Prediction(
                    batch.names[place],
                    tuple((product.classes[k], p) for k, p in zip(classes, probabilities, strict=True)),
                    size,
                    said=tuple(product.spoken(k) for k in classes),
                    inside=own,
                    flaw=batch.flaws.get(place, ""),
                    unsure=None if self.threshold is None else probabilities[0] < self.threshold,
                )
        return [found[place] for place in range(len(batch.names))]
