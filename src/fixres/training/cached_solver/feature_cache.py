"""What a frozen trunk gave, on disk in chunks: each is written whole or not at all, and never used for other input."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fixres.io.safe_load import open_safetensors
from fixres.io.tensors import write_weights


class Cache:
    """The chunks of the passes of one solve, under RUN/cache/KEY."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.folder = root, root / key

    def remove_others(self) -> None:
        """Remove what other inputs left, which nothing will use again."""
        for other in self.root.glob("*"):
            if other != self.folder and other.is_dir():
                shutil.rmtree(other, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything of this solve."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def has(self, what: str, chunk: int) -> bool:
        """Return whether a chunk of a pass is there."""
        return self._path(what, chunk).exists()

    def write(self, what: str, chunk: int, tensors: Mapping[str, Tensor]) -> None:
        """Write one chunk of a pass.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        write_weights(self._path(what, chunk), dict(tensors))

    def read(self, what: str, chunk: int, *names: str) -> tuple[Tensor, ...]:
        """Return tensors of a chunk, mapped into memory."""
        with open_safetensors(self._path(what, chunk)) as file:
            return tuple(file.get_tensor(name) for name in names)

    def seconds(self, what: str = "*") -> float:
        """Return the seconds spent on the chunks that are there, of one pass or of all of them."""
        total = 0.0
        for path in sorted(self.folder.glob(f"{what}-*.safetensors")):
            with open_safetensors(path) as file:
                total += float(file.get_tensor("seconds")) if "seconds" in file.keys() else 0.0  # noqa: SIM118
        return total

    def drop(self, what: str) -> None:
        """Remove the chunks of a pass that is no longer needed."""
        for path in self.folder.glob(f"{what}-*.safetensors"):
            path.unlink(missing_ok=True)

    def _path(self, what: str, chunk: int) -> Path:
        return self.folder / f"{what}-{chunk:06}.safetensors"
