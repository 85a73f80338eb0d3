"""What the verbs of `import fixres` return: values with names, and tables in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy as np

from fixres.evaluation.metrics import PairedDifference


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a notebook; every text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Run:
    """What a training or a fix found on its reported split."""

    folder: Path
    """The run folder; `fixres.load(run.folder)` gives its product."""
    size: int
    """Test size in pixels of the product."""
    split: str
    num_images: int
    rows: tuple[Mapping[str, Any], ...]
    """One, or around a fix up to four, the fixed one last: the fields of `eval --json` and a `label`. Percent. With
    `evaluation.ship best` the probes before them, and `is_shipped` in each."""
    paired: PairedDifference | None
    """Fixed minus before on the same pictures, in points; None without a fix, or where the head before it was new."""
    differences: tuple[Mapping[str, Any], ...] = ()
    """The fixed row minus every other, and what the head alone gained: `row`, `minus` and the fields of `paired`."""

    @property
    def shipped(self) -> Mapping[str, Any]:
        """The row of the product: the one that was chosen to ship, or else the last."""
        return next((row for row in self.rows if row.get("is_shipped")), self.rows[-1])

    @property
    def top1(self) -> float:
        """Accuracy of the product in percent."""
        return float(self.shipped["top1"])

    def _repr_html_(self) -> str:
        rows = [
            [
                str(r.get("label", "")) + (" (ships)" if r.get("is_shipped") else ""),
                str(r["size"]),
                f"{r['top1']:.2f}",
                f"{r['loss']:.3f}",
            ]
            for r in self.rows
        ]
        caption = f"{self.folder}: {self.split}, n = {self.num_images:,}"
        return html_table(caption, ["", "size", "top-1 %", "loss"], rows)


@dataclass(frozen=True)
class Evaluated:
    """Accuracy at one or several sizes, and what was predicted for every picture."""

    checkpoint: str
    data: str
    split: str
    num_images: int
    num_classes: int
    results: tuple[Mapping[str, Any], ...]
    """One per size, the fields of `eval --json`: accuracies in percent, loss in nats, ECE in [0, 1]."""
    paths: tuple[str, ...]
    """Of the N pictures, in their order."""
    labels: np.ndarray
    """int64 `[N]`."""
    predictions: np.ndarray
    """int64 `[sizes, N]`."""
    probabilities: np.ndarray
    """float64 `[sizes, N]`: of the predicted class."""
    remarks: tuple[str, ...]
    """Whether a logged number was repeated, and what else is worth knowing."""

    @property
    def top1(self) -> float:
        """Accuracy in percent at the first size."""
        return float(self.results[0]["top1"])

    def _repr_html_(self) -> str:
        rows = []
        for r in self.results:
            low, high = r["top1_ci95"]
            cells = [f"{r['top1']:.2f}", f"{low:.1f} to {high:.1f}", f"{r['loss']:.3f}", f"{r['ece']:.3f}"]
            rows.append([str(r["size"]), *cells, f"{r['gmacs']:.3f}"])
        caption = f"{self.split} of {self.data}, n = {self.num_images:,}"
        return html_table(caption, ["size", "top-1 %", "95 % interval", "loss", "ECE", "GMACs"], rows)


@dataclass(frozen=True)
class Predicted:
    """The classes of one picture, best first, or why it could not be read."""

    path: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    size: int
    """Side in pixels of what the network saw."""
    unsure: bool | None = None
    """Whether the best probability is below the threshold; None without one."""
    error: str = ""
    inside: tuple[str, ...] | None = None
    """The classes that are promised to hold the right one, best first; None without a `coverage`."""

    @property
    def name(self) -> str:
        """The most probable class; empty for a picture that could not be read."""
        return self.names[0] if self.names else ""


@dataclass(frozen=True)
class Predictions(Sequence[Predicted]):
    """One prediction per picture, in order."""

    items: tuple[Predicted, ...]

    @overload
    def __getitem__(self, index: int) -> Predicted: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Predicted | Predictions:
        """Return one, or some."""
        return Predictions(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.items)

    def _repr_html_(self) -> str:
        rows = []
        for p in self.items:
            best = ", ".join(f"{n} {100 * q:.1f} %" for n, q in zip(p.names, p.probabilities, strict=True))
            rows.append([p.path, best or f"cannot be read: {p.error}", "unsure" if p.unsure else ""])
        return html_table(f"{len(rows)} pictures", ["picture", "classes", ""], rows)


@dataclass(frozen=True)
class Advice:
    """Which size to test and to fix at, and why."""

    size: int
    crop_ratio: float
    network: str
    """`as it is` or `fixed`."""
    why: str
    split: str
    """The split it was measured on."""
    num_images: int
    rows: tuple[Mapping[str, Any], ...]
    """One per size, crop ratio and network: top1 in percent, loss in nats, gmacs, ms per picture."""
    theory: Mapping[str, Any]
    """Apparent size of objects, the size at which they look as in training."""
    confirmed: Mapping[str, Any] | None = None
    """`top1` of the advice on the half that did not choose, and its `num_images`; None where nothing was halved."""
    not_fixed: str | None = None
    """Why no head was fixed though it was asked for, so that the rows say nothing about a fix."""
    train_size: Mapping[str, Any] | None = None
    """The `size` to train at for a network used at `serve_size`, and `why`; None where neither that size nor a time was
    given."""

    def _repr_html_(self) -> str:
        rows = [advice_cells(row) for row in self.rows]
        caption = f"{self.network} at {self.size} px: {self.why} ({self.split}, n = {self.num_images:,})"
        caption += f"; nothing was fixed: {self.not_fixed}" if self.not_fixed else ""
        return html_table(caption, ["", "network", "size", "crop", "top-1 %", "GMACs", "ms"], rows)


def advice_cells(row: Mapping[str, Any]) -> list[str]:
    """Return a measured row of an advice for people: on the front, network, size, crop, top-1, GMACs and ms."""
    mark, view = "*" if row["on_front"] else "", row["view"].removeprefix("crop ")
    figures = [f"{row['top1']:.2f}", f"{row['gmacs']:.3f}", f"{row['ms']:.2f}"]
    return [mark, row["network"], str(row["size"]), view, *figures]
