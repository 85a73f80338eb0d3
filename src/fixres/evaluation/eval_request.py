"""What a measurement is asked for: the arguments of `fixres.evaluate` and the flags of `fixres eval`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from fixres.checkpoints.feeding_request import PreprocessChanges
from fixres.config.choices import BackendName, Count, Device, OnBadImage, SplitName, Tta
from fixres.config.stage import Positive


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """Which pictures a network is run over, and how. None means: as the product says."""

    data: str | None = None
    """Data URI; the product's own when left out."""
    split: SplitName | None = None
    """Split; the collection's reported one when left out."""
    batch_size: Positive | None = None
    """Pictures per batch; the one the product was measured with when left out."""
    workers: Count | None = None
    """Loader processes."""
    on_bad_image: OnBadImage = "error"
    """What an unreadable picture does; skipped ones are counted and listed."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True, kw_only=True)
class EvalRequest(SplitRequest, PreprocessChanges):
    """What to measure there."""

    sizes: tuple[Positive, ...] = ()
    """Sizes in pixels; the product's test size when left out."""
    tta: Tta = "none"
    """Average the probabilities of: the mirror image too; centre and corner crops; those and their mirror images."""
    corrupt: str = ""
    """Measure spoiled pictures too: jpeg=QUALITY, blur=PIXELS, noise=SHARE, several by commas."""
    calibrate: bool = False
    """Fit a temperature on the selecting split; loss and ECE with and without it."""
    per_class: bool = False
    """Recall, precision and F1 of every class."""
    confusion: bool = False
    """The confusion matrix in the JSON for up to 5,000 classes; up to 100 it is always there."""
    bootstrap: Count = 0
    """Resamples for the intervals of all metrics in the JSON; 0: none."""
    backend: BackendName = "torch"
    """Who computes; others than torch have to agree with it on the first pictures."""
