"""Embeddings and probabilities of every picture of a split as NumPy files, which `score` reads without PyTorch.

    embedding.npy   float32 [N, D]   what the classifier is given: pooled features
    softmax.npy     float32 [N, C]   probabilities
    labels.npy      int64 [N]
    outcomes.npy    [N]              rank of the label, prediction, its probability and the loss, in float64
    index.csv       path and label of every row
    extract.json    what was extracted from what

Features need no head: where the weights have none, or one for other classes than the collection's, there are no
softmax.npy and no outcomes.npy, and the labels are places in the collection's own class list.

Rows go to their place in files of full size, so memory stays constant; what is finished is noted per batch, so the same
command goes on after a kill. Every picture is computed in the batch it would have been in without one, by whichever
process: the files are equal bit for bit. A file ends in .part until all of it is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.checkpoints.fingerprint import cache_key
from fixres.checkpoints.product import Product
from fixres.data.loader import evaluation_batches
from fixres.data.splits import Split
from fixres.errors import Stopped, UserError, counted
from fixres.evaluation.evaluate import Reading, conditions, predict_logits
from fixres.evaluation.measure import conditions_of, open_for_features
from fixres.inference.extracted_rows import could_be_read, layout_of, rows_of, write_rows
from fixres.inference.requests import ExtractRequest
from fixres.io.array_store import Rows, load_array
from fixres.io.csv_text import FOR_PROGRAMS, CsvRows
from fixres.io.files import require_room, require_writable_folder, reserved, write_text, write_with
from fixres.io.progress import Progress
from fixres.models.anatomy import head_names
from fixres.models.sizes import evaluation_mode
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

_CHECKPOINT_SECONDS = 2.0
"""Work that a kill can cost, about."""
_RECORD = "extract.json"
_FORMAT = 1


@dataclass(frozen=True)
class Extracted:
    """What `extract` left in a folder."""

    folder: Path
    num_images: int
    """Rows, N."""
    num_classes: int
    """Columns of softmax.npy, C; 0 where there is none."""
    embedding_size: int
    """Columns of embedding.npy, D."""
    split: str
    size: int
    """Side in pixels of what the network saw."""
    num_resumed: int
    """Pictures that were done before this call."""
    bad_images: tuple[str, ...] = ()
    why_no_softmax: str = ""
    """Why the head says nothing about the collection's classes; empty where it does."""
    notes: tuple[str, ...] = ()
    """What was found when the collection was opened."""

    def embedding(self) -> np.ndarray:
        """Return float32 `[N, D]`, mapped into memory."""
        return load_array(self.folder / "embedding.npy")

    def softmax(self) -> np.ndarray:
        """Return float32 `[N, C]`, mapped into memory.

        Raises:
            UserError: the head says nothing about the collection's classes.
        """
        if self.why_no_softmax:
            raise UserError(f"{self.folder} has no softmax.npy: {self.why_no_softmax}")
        return load_array(self.folder / "softmax.npy")

    def labels(self) -> np.ndarray:
        """Return int64 `[N]`."""
        return load_array(self.folder / "labels.npy")


@dataclass(frozen=True)
class _Job:
    """Everything a process needs to make its rows."""

    network: nn.Module
    preprocess: Preprocess
    split: Split
    runtime: Runtime
    reading: Reading
    with_head: bool

    @property
    def shape(self) -> int:
        """Pictures per batch, padding included: that of an evaluation, whose bits are to be repeated."""
        return min(self.reading.batch_size, len(self.split))

    @property
    def num_batches(self) -> int:
        return -(-len(self.split) // self.reading.batch_size)

    def places(self, batch: int) -> np.ndarray:
        """Return which pictures of the split a batch holds, int64."""
        first = batch * self.reading.batch_size
        return np.arange(first, min(first + self.reading.batch_size, len(self.split)), dtype=np.int64)


def extract(product: Product, request: ExtractRequest, out: Path, progress: Progress = lambda *_: None) -> Extracted:
    """Write the embeddings, probabilities and labels of a split into a folder, or go on with what is there.

    Where the product has no head for the collection's classes there are no probabilities.

    Args:
        product: the network, as it is fed in an evaluation.
        request: data, split, one size, batch size, workers, device.
        out: the folder; several processes of a run share it.
        progress: called with (pictures done, pictures in all).

    Raises:
        UserError: no data, no such split, a folder that holds something else, no room, a picture that cannot be read.
        Stopped: a signal came; the same call goes on.
    """
    out = out.absolute()
    if request.size is not None:
        product = product.at(request.size)
    collection, why = open_for_features(product, request)
    split = collection.split(request.split or collection.report)
    if not len(split):
        raise UserError(f"{split.name} of {collection.uri} is empty\n  --split {' or '.join(collection.splits)}")
    before = _read_record(out)
    runtime, reading = conditions_of(product, request, before["conditions"] if before is not None else None)
    job = _Job(runtime.place(product.at_test_size().model), product.preprocess, split, runtime, reading, not why)
    num_classes, embedding_size = _widths(job)
    runtime.keep_memory()
    record: dict[str, Any] = {
        "format": _FORMAT,
        "state": "running",
        "checkpoint": product.source,
        "model": product.architecture,
        "weights": product.weights,
        "data": collection.uri,
        "split": split.name,
        "num_images": len(split),
        "num_classes": num_classes,
        "classes": list(split.classes),
        "why_no_softmax": why,
        "embedding_size": embedding_size,
        "preprocess": asdict(product.preprocess),
        "network": cache_key(job.network, product.preprocess, {}, {}),
        "conditions": conditions(split, len(split), reading.batch_size, runtime),
    }
    # As it will be read back, tuples as lists.
    record = json.loads(json.dumps(record))
    rows = Rows(out, layout_of(len(split), embedding_size, num_classes), job.num_batches)
    with ExitStack() as stack:
        with runtime.processes.main_first():
            if runtime.processes.is_main:
                stack.enter_context(reserved(out))
                _begin(rows, record, before, split)
        done = runtime.processes.gather(rows.done() if (out / _RECORD).exists() else None)[0]
        if before is not None and before["state"] == "done":
            rows.require_all()
            return _describe(out, before, len(split), collection.notes)
        num_resumed = sum(len(job.places(batch)) for batch in np.flatnonzero(done).tolist())
        with runtime.processes.together(), runtime.stop:
            _fill(job, rows, [int(batch) for batch in np.flatnonzero(~done)], num_resumed, progress)
        with runtime.processes.main_first():
            if runtime.processes.is_main:
                record = _end(rows, record, split)
        record = runtime.processes.gather(record)[0]
    return _describe(out, record, num_resumed, collection.notes)


@contextmanager
def _remembering(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that holds, after each forward pass, what the classifier was given, `[B, D]`.

    Of networks with several classifiers it is the first one's; of one that is applied to a map, the map's mean.
    """
    seen: list[Tensor] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0].detach()
        seen[:] = [given.flatten(2).mean(2) if given.dim() > 2 else given]

    hook = network.get_submodule(head_names(network)[0]).register_forward_pre_hook(remember)
    try:
        yield seen
    finally:
        hook.remove()


def _widths(job: _Job) -> tuple[int, int]:
    """Return the number of classes that are told apart, 0 without a head for them, and the length of an embedding."""
    blank = torch.zeros(1, 3, job.preprocess.size, job.preprocess.size, dtype=torch.uint8)
    with evaluation_mode(job.network), _remembering(job.network) as seen:
        logits = predict_logits(job.network, blank, job.preprocess, job.runtime, 1)
    return logits.shape[1] if job.with_head else 0, seen[0].shape[1]


def _begin(rows: Rows, record: dict[str, Any], before: dict[str, Any] | None, split: Split) -> None:
    """Make the files, or check that those that are there are of the same network, pictures and conditions."""
    if before is not None:
        for key in ("data", "split", "preprocess", "network", "conditions", "num_classes"):
            if before[key] != record[key]:
                raise UserError(f"{rows.folder} holds {_difference(key, before, record)}\n  use another --out")
        return
    require_writable_folder(rows.folder)
    require_room(rows.folder, rows.num_bytes(), f"the arrays of {counted(len(split), 'picture')}")
    # Without outcomes the labels say which pictures could be read, so that they come with the rest of a row.
    rows.create({"labels": split.labels} if "outcomes" in rows.layout else {})
    _write_record(rows.folder, record)


def _fill(job: _Job, rows: Rows, missing: list[int], done: int, progress: Progress) -> None:
    """Compute this process's share of the missing batches and write them.

    Raises:
        UserError: a picture cannot be read, or the outputs are not finite.
        Stopped: a signal came; what was computed is kept.
    """
    shard = job.runtime.processes.shard
    own = missing[shard.rank :: shard.world]
    if not own:
        return
    places = np.concatenate([job.places(batch) for batch in own])
    todo = iter(own)
    noted = time.monotonic()
    with (
        rows.writing(),
        evaluation_mode(job.network),
        _remembering(job.network) as seen,
        closing(
            evaluation_batches(
                job.split.take(job.split.name, places), (job.preprocess,), job.reading.batch_size, job.reading.policy
            )
        ) as read,
    ):
        for (images,), labels, indices in read:
            wanted = int(places[int(indices[0])]) // job.reading.batch_size
            while (batch := next(todo)) != wanted:
                # Not one of its pictures could be read.
                write_rows(rows, batch, job.places(batch), np.empty(0, dtype=np.int64), {})
            logits = predict_logits(job.network, images, job.preprocess, job.runtime, job.shape)
            if not torch.isfinite(logits).all():
                raise UserError(
                    f"the network's outputs are not finite at {job.preprocess.size} px; its weights are broken"
                )
            made = rows_of(logits, labels, seen[0][: len(logits)], job.with_head)
            write_rows(rows, batch, job.places(batch), places[indices.numpy()], made)
            done += len(images) * shard.world
            progress(min(done, len(job.split)), len(job.split))
            if time.monotonic() - noted > _CHECKPOINT_SECONDS:
                rows.note()
                noted = time.monotonic()
            if job.runtime.stop.received:
                break
        else:
            for batch in todo:
                write_rows(rows, batch, job.places(batch), np.empty(0, dtype=np.int64), {})
    if job.runtime.stop.received:
        raise Stopped


def _end(rows: Rows, record: dict[str, Any], split: Split) -> dict[str, Any]:
    """Put the files in place, without the rows of pictures that could not be read, and return the finished record."""
    begun = _read_record(rows.folder)
    if begun is not None and begun["state"] == "finishing":
        record = begun
    else:
        kept = could_be_read(rows.read("outcomes" if "outcomes" in rows.layout else "labels"))
        if not kept.any():
            raise UserError(f"none of the {counted(len(split), 'picture')} of {split.name} can be read")
        bad = [split.paths[int(place)] for place in np.flatnonzero(~kept)]
        write_with(rows.folder / "index.csv", lambda path: _write_index(path, split, np.flatnonzero(kept).tolist()))
        left = {"num_images": int(kept.sum()), "num_bad_images": len(bad), "bad_images": bad}
        record = {**record, "state": "finishing", **left}
        # From here on the arrays may be shorter than the split: what was left out must be known already.
        _write_record(rows.folder, record)
    rows.finish(could_be_read)
    record = {**record, "state": "done"}
    _write_record(rows.folder, record)
    rows.forget()
    return record


def _describe(out: Path, record: dict[str, Any], num_resumed: int, notes: tuple[str, ...]) -> Extracted:
    """Return what a finished record says."""
    return Extracted(
        folder=out,
        num_images=record["num_images"],
        num_classes=record["num_classes"],
        embedding_size=record["embedding_size"],
        split=record["split"],
        size=record["preprocess"]["size"],
        num_resumed=min(num_resumed, record["num_images"]),
        bad_images=tuple(record.get("bad_images", ())),
        why_no_softmax=record.get("why_no_softmax", ""),
        notes=notes,
    )


def _read_record(out: Path) -> dict[str, Any] | None:
    """Return extract.json of a folder, or None where nothing was begun.

    Raises:
        UserError: the folder holds arrays that `extract` did not write.
    """
    path = out / _RECORD
    if path.exists():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record["format"] == _FORMAT and isinstance(record["conditions"], dict):
                return record
        except (OSError, ValueError, KeyError):
            pass
        raise UserError(f"{path} cannot be read as what extract writes\n  use another --out")
    foreign = [name for name in ("embedding.npy", "softmax.npy", "labels.npy") if (out / name).exists()]
    if foreign:
        raise UserError(f"{out} holds {foreign[0]}, which is not from extract\n  use another --out")
    return None


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words what differs between the folder and the command."""
    if key == "network":
        return f"what {before['checkpoint']} gave, other weights than {now['checkpoint']}"
    if key in ("preprocess", "conditions"):
        key, before, now = next(
            (name, before[key], now[key]) for name in now[key] if before[key].get(name) != now[key][name]
        )
        if key == "file_list":
            return "what other pictures gave: their names or labels differ"
    return f"what was made with {key.replace('_', ' ')} {before.get(key)}, asked for is {now[key]}"


def _write_record(out: Path, record: dict[str, Any]) -> None:
    """Write extract.json."""
    write_text(out / _RECORD, json.dumps(record, indent=1) + "\n")


def _write_index(path: Path, split: Split, places: Sequence[int]) -> None:
    """Write path and label of the pictures at `places` as CSV."""
    rows = [["path", "label"], *([split.paths[i], split.classes[int(split.labels[i])]] for i in places)]
    text = CsvRows(advice=FOR_PROGRAMS).text(rows)
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
