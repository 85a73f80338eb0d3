"""Every picture that has a label as one training split: what a network is refitted on once all is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import Collection, open_collection
from fixres.data.splits import Encoded, Names, Source, Split
from fixres.resolution import Alpha, Exif


def open_to_train(data: Data, split_file: Path | None = None) -> Collection:
    """Open the collection a recipe trains on, as `data.train_on` says; see `open_collection`.

    Raises:
        UserError: unknown scheme, missing or empty folder, classes that do not fit.
    """
    collection = open_collection(data, split_file=split_file)
    return collection if data.train_on == "train" else all_labelled(collection)


def all_labelled(collection: Collection) -> Collection:
    """Return the collection with all its splits as its training split; nothing is left to select or to report on."""
    splits = collection.splits
    count = sum(len(split) for split in splits.values())
    sources = {name: split.source for name, split in splits.items()}
    first = next(iter(splits.values()))
    if all(source == first.source for source in sources.values()):
        source, paths = first.source, Names(path for split in splits.values() for path in split.paths)
    else:
        kind = JoinedFiles if all(isinstance(one, Encoded) for one in sources.values()) else Joined
        source = kind(sources)
        paths = Names(f"{name}/{path}" for name, split in splits.items() for path in split.paths)
    joined = Split(
        "train",
        collection.classes,
        np.concatenate([split.labels for split in splits.values()]),
        paths,
        source,
        first.exif,
        first.alpha,
    )
    parts = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    note = f"all {count:,} pictures with a label are trained on ({parts}); nothing is measured"
    return replace(collection, splits={"train": joined}, select="train", report="train", notes=(note,))


@dataclass(frozen=True)
class Joined:
    """Sources of several splits; a path begins with the name of its split."""

    parts: Mapping[str, Source]

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture; raises BadImage."""
        name, _, own = path.partition("/")
        return self.parts[name].read(own, exif, alpha)

    def stamp(self, paths: Names) -> str:
        """Return a text that changes when the pictures at `paths` may have."""
        own: dict[str, list[str]] = {name: [] for name in self.parts}
        for path in paths:
            name, _, rest = path.partition("/")
            own[name].append(rest)
        return "\n".join(self.parts[name].stamp(Names(rest)) for name, rest in own.items())


@dataclass(frozen=True)
class JoinedFiles(Joined, Encoded):
    """The same for sources of encoded files."""

    def read_bytes(self, path: str) -> bytes:
        """Return the picture's file as it is; raises BadImage."""
        name, _, own = path.partition("/")
        part = self.parts[name]
        assert isinstance(part, Encoded)
        return part.read_bytes(own)

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture; raises BadImage."""
        return Encoded.read(self, path, exif, alpha)
