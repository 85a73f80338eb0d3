"""What `extract`, `predict` and `export` are asked for: arguments of verbs and flags of commands, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fixres.config.choices import BackendName, Count, Device
from fixres.config.stage import Fraction, Positive
from fixres.evaluation.eval_request import SplitRequest


@dataclass(frozen=True, kw_only=True)
class ExtractRequest(SplitRequest):
    """Which pictures to extract from, and at which size."""

    size: Positive | None = None
    """Size in pixels; the product's test size when left out."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """How pictures are classified."""

    top_k: Positive = 5
    """Classes to name per picture."""
    size: Positive | None = None
    """Size in place of the product's test size."""
    threshold: Fraction | None = None
    """Best probability below which a prediction is called unsure, in a column of its own."""
    coverage: float | None = None
    """Share of pictures whose set of classes holds the right one, 0.8, 0.9, 0.95 or 0.99; the set is written, too."""
    abstain: float | None = None
    """Share of wrong answers that is promised, 0.01, 0.02, 0.05 or 0.1; less sure predictions are called unsure."""
    batch_size: Positive = 16
    """Pictures computed at once."""
    workers: Count | None = None
    """Processes that read pictures; one per core when left out."""
    device: Device = "auto"
    """Where to compute."""
    backend: BackendName = "torch"
    """Who computes, on a CPU; anything but torch is compared with it on the first pictures."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to write, and what to compare it on."""

    out: Path
    """File to write (.onnx, .pt2, .xml), or a folder for model.onnx and its company."""
    format: str = "onnx"
    """onnx: for onnxruntime and most others; torch: torch.export's .pt2; openvino: IR, through ONNX."""
    size: Positive | None = None
    """Size in place of the product's test size."""
    softmax: bool = False
    """Give probabilities in place of logits."""
    normalise: bool = False
    """Apply mean and std inside the file, which then takes pixels from 0 to 255."""
    data: str | None = None
    """Data URI whose reported split the file is compared on; the product's own when left out."""
    pictures: tuple[str, ...] = ()
    """Files and folders to compare on in place of data."""
    int8: bool = False
    """Round an ONNX or OpenVINO file to 8 bits; calibrated on the training split, measured on the reported one."""
    calibration: str | None = None
    """Data URI for --int8; the product's own when left out."""
    max_drop: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Points of top-1 that 8 bits may cost; where they cost more, nothing is written."""
