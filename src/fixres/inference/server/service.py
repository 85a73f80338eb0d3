"""From bytes to an answer: decode in processes, compute in batches, name the classes."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fixres.evaluation.promises import SetRule
from fixres.inference.server.batcher import Batcher, Row
from fixres.inference.server.decoders import Decoders
from fixres.inference.server.network import Network
from fixres.inference.server.prometheus import Meters
from fixres.inference.server.read_picture import Task
from fixres.inference.server.schemas import (
    ComparedRow,
    FileAnswer,
    Named,
    PredictAnswer,
    PredictOptions,
    Problem,
    Weights,
    busy,
)
from fixres.inference.server.settings import Settings, decode_seconds
from fixres.inference.server.uploads import Admission, Ticket, Upload
from fixres.runtime.cpus import usable_cpus

Key = tuple[int, Weights]
_DECODERS = 4
_MANY_BATCHES = 2
"""Batches of pictures in the server, from which it is busy."""
_LARGE = 12_200_000
"""Pixels of a picture that may not hold the last decoder: phones take 4032 x 3024, which are fewer."""


class Service:
    """One network with its queue; lives in one event loop."""

    def __init__(self, network: Network, settings: Settings, meters: Meters) -> None:
        self.network = network
        self.limits = settings.limits
        self.admission = Admission(settings.limits)
        self.meters = meters
        self.degrade_to, self._many = settings.degrade_to, _MANY_BATCHES * settings.max_batch
        self.batcher: Batcher[Key] = Batcher(
            self._compute,
            settings.max_batch,
            settings.max_wait_ms / 1000,
            lambda: self.admission.coming > 0,
            self._count,
        )

    def _compute(self, key: Key, images: Tensor) -> npt.NDArray[np.float64]:
        size, weights = key
        return self.network.compute[weights](images, size)

    def _count(self, num: int, seconds: float) -> None:
        self.meters.pictures.inc(num)
        self.meters.batches.inc()
        self.meters.batch_seconds.inc(seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer meanwhile; to be left when no request is left, or none may wait any longer."""
        num = max(2, min(_DECODERS, usable_cpus()))
        self.decoders = Decoders(num, decode_seconds(), self.limits.pixels)
        self.batcher.start()
        try:
            yield
            await self.batcher.stop()
        finally:
            self.decoders.close()

    @property
    def is_ready(self) -> bool:
        """Whether a picture that comes now is answered: decoders and batches go on, and there is room."""
        return self.batcher.is_alive and self.decoders.is_ready and self.admission.has_room

    @property
    def is_busy(self) -> bool:
        """Whether so many pictures are in the server that a smaller size is worth its loss."""
        # Not those that are still being sent: a slow client computes nothing.
        return self.admission.pictures > self._many

    async def size_of(self, options: PredictOptions) -> tuple[int, bool]:
        """Return the size to answer at, once it is known to be answered, and whether it is smaller for being busy.

        Raises:
            Problem: the size or the weights are not answered.
        """
        self.network.require_weights(options.weights)
        size = options.size or self.network.preprocess.size
        asked = (options.size, options.coverage, options.abstain)
        may_degrade = self.degrade_to is not None and asked == (None, None, None) and not options.explain
        is_degraded = may_degrade and options.weights == "fixed" and self.is_busy
        if is_degraded:
            assert self.degrade_to is not None
            size = self.degrade_to
            self.meters.degraded.inc()
        # Trying a size for the first time takes a moment.
        await asyncio.to_thread(self.network.require_size, size)
        return size, is_degraded

    async def _views(self, file: tuple[str, bytes], *sizes: int, is_one_of_many: bool = False) -> list[Tensor]:
        """Return what the network sees of a file at some sizes, uint8 `[3, S, S]` (channels last in memory) each.

        Raises:
            Problem: the picture cannot be used; 503, it was not its turn in time.
        """
        name, data = file
        views = tuple(self.network.preprocess.at(size) for size in sizes)
        try:
            async with asyncio.timeout(self.limits.seconds):
                task = Task(name, data, views, self.limits.pixels, _LARGE)
                found = await self.decoders(task, is_one_of_many=is_one_of_many)
        except TimeoutError:
            raise busy("reading the picture took too long") from None
        return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in found]

    async def predict(self, upload: Upload, size: int, options: PredictOptions, ticket: Ticket) -> PredictAnswer:
        """Return the best classes of one picture, and where the network looks if that was asked for.

        Raises:
            Problem: the picture cannot be used, or the answer takes too long.
        """
        promised = self.network.promised(options, size)
        ticket.take_views(1, size)
        (image,) = await self._views(upload.take()[0], size)
        ticket.mark_read()
        row = await self.row((size, options.weights), image)
        explanation = await self._explain(image, row, options.weights) if options.explain else None
        top, marks = self.named(row, options.top_k), self._marks(row, promised)
        return PredictAnswer(size=size, weights=options.weights, top=top, explanation=explanation, **marks)

    async def _explain(self, pixels: Tensor, row: Row, weights: Weights) -> str:
        drawn = await self.batcher.alone(self.network.explain, pixels, int(row.argmax()), weights)
        return await asyncio.to_thread(data_uri, drawn)

    async def predict_all(self, upload: Upload, size: int, options: PredictOptions, ticket: Ticket) -> list[FileAnswer]:
        """Return an answer for every file; one that cannot be used does not stop the others."""
        promised = self.network.promised(options, size)
        names = [name for name, _ in upload.files]
        ticket.take_views(len(names), size)
        is_many = len(names) > 1
        read = await asyncio.gather(
            *(self._views(file, size, is_one_of_many=is_many) for file in upload.take()), return_exceptions=True
        )
        ticket.mark_read()
        rows = await asyncio.gather(
            *(self.row((size, options.weights), views[0]) for views in read if not isinstance(views, BaseException))
        )
        found = iter(rows)
        answers = []
        for name, views in zip(names, read, strict=True):
            if isinstance(views, Problem):
                answers.append(FileAnswer(file=name, error={"code": views.code, "message": views.message}))
            elif isinstance(views, BaseException):
                raise views
            else:
                row = next(found)
                top, marks = self.named(row, options.top_k), self._marks(row, promised)
                answers.append(FileAnswer(file=name, top=top, **marks))
        return answers

    async def compare(self, upload: Upload, options: PredictOptions, ticket: Ticket) -> list[ComparedRow]:
        """Return the picture at every size worth comparing, one after the other so that times mean something."""
        compared = self.comparison()
        for _, size, _ in compared:
            ticket.take_views(1, size)
        views = await self._views(upload.take()[0], *(size for _, size, _ in compared))
        ticket.mark_read()
        rows = []
        for (label, size, weights), pixels in zip(compared, views, strict=True):
            shown = await asyncio.to_thread(data_uri, pixels.permute(1, 2, 0).numpy())
            row = ComparedRow(label=label, size=size, weights=weights, top=[], milliseconds=0, view=shown)
            rows.append(row)
            try:
                await asyncio.to_thread(self.network.require_size, size)
                start = time.perf_counter()
                found = await self.row((size, weights), pixels)
            except Problem as problem:
                row.error = problem.message
                continue
            row.milliseconds = round(1000 * (time.perf_counter() - start), 2)
            row.explanation = await self._explain(pixels, found, weights) if options.explain else None
            row.top = self.named(found, options.top_k)
        return rows

    def comparison(self) -> list[tuple[str, int, Weights]]:
        """Return label, size and weights of the rows of a comparison."""
        train, test = self.network.train_size, self.network.preprocess.size
        if "before_fix" in self.network.compute:
            return [
                ("train size", train, "before_fix"),
                ("test size, not fixed", test, "before_fix"),
                ("test size, fixed", test, "fixed"),
            ]
        if train == test:
            return [("train and test size", test, "fixed")]
        return [("train size", train, "fixed"), ("test size", test, "fixed")]

    async def row(self, key: Key, image: Tensor) -> Row:
        """Return the probabilities of one picture, computed with whatever else has the same key.

        Raises:
            Problem: 503, it took too long.
        """
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self.batcher(key, image)
        except TimeoutError:
            raise Problem(503, "busy", "the answer took too long; try again", 1) from None

    def _marks(self, row: Row, promised: tuple[SetRule | None, float | None]) -> dict[str, Any]:
        """Return the set of classes that holds the right one, and whether the answer is unsure, as far as asked for."""
        rule, threshold = promised
        marks: dict[str, Any] = {}
        if rule is not None:
            inside = rule.sets(row[None])[0]
            order = np.argsort(-row, kind="stable")
            marks["set"] = [self.network.classes[k] for k in order.tolist() if inside[k]]
        if threshold is not None:
            marks["unsure"] = bool(row.max() < threshold)
        return marks

    def named(self, row: Row, top_k: int) -> list[Named]:
        """Return the best classes; of equal ones the first."""
        best = np.argsort(-row, kind="stable")[:top_k]
        classes = self.network.classes
        return [
            Named(
                name=classes[k],
                description=self.network.spoken(k) if self.network.spoken(k) != classes[k] else None,
                probability=float(row[k]),
            )
            for k in best.tolist()
        ]


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Return uint8 `[S, S, 3]` as a picture a page can show."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
