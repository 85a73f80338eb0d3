"""What an extraction leaves in its folder beside the arrays: the record of what was made from what, and the index."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.io.array_store import load_array
from fixres.io.files import write_text

RECORD = "extract.json"
OUTCOME = np.dtype([("prediction", "<i8"), ("rank", "<i8"), ("confidence", "<f8"), ("loss", "<f8"), ("near_tie", "?")])
"""One row of outcomes.npy. `rank`: how many classes come before the label, -1 for a picture that cannot be read."""

FORMAT = 1


@dataclass(frozen=True)
class Extracted:
    """What `extract` left in a folder."""

    folder: Path
    num_images: int
    """Rows, N."""
    num_classes: int
    """Columns of softmax.npy, C."""
    embedding_size: int
    """Columns of embedding.npy, D."""
    split: str
    size: int
    """Side in pixels of what the network saw."""
    num_resumed: int
    """Pictures that were done before this call."""
    bad_images: tuple[str, ...] = ()

    def embedding(self) -> np.ndarray:
        """Return float32 `[N, D]`, mapped into memory."""
        return load_array(self.folder / "embedding.npy")

    def softmax(self) -> np.ndarray:
        """Return float32 `[N, C]`, mapped into memory."""
        return load_array(self.folder / "softmax.npy")

    def labels(self) -> np.ndarray:
        """Return int64 `[N]`."""
        return load_array(self.folder / "labels.npy")


def describe(out: Path, record: dict[str, Any], num_resumed: int) -> Extracted:
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
    )


def layout(num_images: int, embedding_size: int, num_classes: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of every array. The outcomes are last: they say which rows are kept in the end."""
    return {
        "embedding": ((num_images, embedding_size), np.dtype("<f4")),
        "softmax": ((num_images, num_classes), np.dtype("<f4")),
        "labels": ((num_images,), np.dtype("<i8")),
        "outcomes": ((num_images,), OUTCOME),
    }


def read_record(out: Path) -> dict[str, Any] | None:
    """Return extract.json of a folder, or None where nothing was begun.

    Raises:
        UserError: the folder holds arrays that `extract` did not write.
    """
    path = out / RECORD
    if path.exists():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record["format"] == FORMAT and isinstance(record["conditions"], dict):
                return record
        except (OSError, ValueError, KeyError):
            pass
        raise UserError(f"{path} cannot be read as what extract writes\n  use another --out")
    foreign = [name for name in ("embedding.npy", "softmax.npy", "labels.npy") if (out / name).exists()]
    if foreign:
        raise UserError(f"{out} holds {foreign[0]}, which is not from extract\n  use another --out")
    return None


def difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
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


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write extract.json."""
    write_text(out / RECORD, json.dumps(record, indent=1) + "\n")


def write_index(path: Path, split: Split, places: Sequence[int]) -> None:
    """Write path and label of the pictures at `places` as CSV."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label"])
        writer.writerows([split.paths[int(i)], split.classes[int(split.labels[i])]] for i in places)
