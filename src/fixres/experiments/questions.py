"""What the advice and the benches are asked: arguments of `fixres.advise` and flags of the commands, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fixres.config.choices import BackendName, Count, Decode, Device, OnBadImage
from fixres.config.stage import Above0, Factor, Positive

Published = Literal["v1", "v2"]
"""Published recipes of a fix: test-time preprocessing, or augmented."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be advised on. None and empty mean: as the product says, or candidates."""

    data: str | None = None
    """Data URI; the product's own when left out."""
    sizes: tuple[Positive, ...] = ()
    """Sizes to measure; left out: from the train size to twice it in steps of 32, or of the network's patches, and the
    size at which objects look as large as in training."""
    crop_ratios: tuple[Factor, ...] = ()
    """Crop ratios to measure; the product's own and 1 when left out."""
    budget_gmacs: Above0 | None = None
    """Most work for a picture."""
    budget_ms: Above0 | None = None
    """Most time for a picture, in milliseconds on this machine."""
    serve_size: Positive | None = None
    """Size in pixels the network will be used at: which size to train at is then answered, too."""
    fixed: bool = True
    """Also fix the head at every size, on cached features of the training split."""
    also: tuple[str, ...] = ()
    """Other collections of the same classes, by data URI: every row is measured on their reported splits, too."""
    corrupt: str = ""
    """The same on spoiled pictures: jpeg=QUALITY, blur=PIXELS, noise=SHARE, several by commas."""


@dataclass(frozen=True, kw_only=True)
class PictureQuestion:
    """What is to be advised on before any training."""

    models: tuple[str, ...] = ()
    """Networks to try: timm names or package:NAME; left out: small ones that are on this disk."""
    minutes: Above0 = 1.0
    """Time for the measurement; a network at a size that would probably overrun it is not begun."""
    sizes: tuple[Positive, ...] = ()
    """Sizes to measure."""
    crop_ratios: tuple[Factor, ...] = ()
    """Crop ratios to measure."""
    budget_gmacs: Above0 | None = None
    """Most work for a picture."""
    budget_ms: Above0 | None = None
    """Most time for a picture, in milliseconds on this machine."""
    serve_size: Positive | None = None
    """Size in pixels the network will be used at."""
    on_bad_image: OnBadImage = "error"
    """What an unreadable picture does; skipped ones are counted and listed."""


@dataclass(frozen=True, kw_only=True)
class LoaderBench:
    """What `bench_loader` measures."""

    data: str = ""
    """Data URI; left out: generated JPEGs of about 500 x 375."""
    size: Positive = 128
    """Side in pixels of the square the network sees."""
    images: Positive | None = None
    """Pictures to read in a pass; all of --data, or 300 generated ones."""
    workers: tuple[Count, ...] = (0,)
    """Numbers of loader processes to measure; 0: in the main process, on one thread."""
    vs: tuple[Literal["torchvision", "timm", "none"], ...] = ("torchvision",)
    """What to run beside."""
    eval: bool = False
    """Measure the test-time path in place of the training one."""
    repeat: Positive = 5
    """Measured passes of every side."""
    batch_size: Positive = 50
    """Pictures per batch."""
    decode: Decode = "fast"
    """data.decode of the training path."""


@dataclass(frozen=True, kw_only=True)
class TrainBench:
    """What `bench_train` measures."""

    model: str = "resnet18"
    """Architecture."""
    size: Positive = 128
    """Side in pixels of the square the network sees."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Pictures per batch."""
    vs: tuple[Literal["timm", "torch"], ...] = ("timm", "torch")
    """What to run beside: the settings of timm's train.py, plain PyTorch with torchvision."""
    repeat: Positive = 5
    """Turns of every side."""
    steps: Positive = 8
    """Measured steps of a turn."""
    workers: Count = 0
    """Loader processes of every side; 0: in the main process."""


@dataclass(frozen=True, kw_only=True)
class EvalBench:
    """What `bench_eval` measures."""

    data: str = ""
    """Data URI, of which the training split is read; left out: generated JPEGs of about 500 x 375."""
    sizes: tuple[Positive, ...] = (128, 224)
    """Sizes in pixels."""
    images: Positive | None = None
    """Pictures of a pass; all of --data, or 768 generated ones."""
    backends: tuple[BackendName, ...] = ("torch",)
    """Who computes on our side, one side for each."""
    device: Device = "cpu"
    """Device of ours; on another than the CPU nothing runs beside: --vs none."""
    vs: tuple[Literal["timm", "none"], ...] = ("timm",)
    """What to run beside."""
    repeat: Positive = 3
    """Passes of every side."""
    batch_size: Positive = 64
    """Pictures per batch of ours; timm's is its default, 256."""
    workers: Count | None = None
    """Loader processes of ours, one per core when left out; timm's are its default, 4."""
    threads: Count = 0
    """Threads of the network on every side; 0: one per core."""


@dataclass(frozen=True, kw_only=True)
class FixBench:
    """What `bench_fix` measures."""

    checkpoints: tuple[str, ...]
    """Trained networks on one collection: run folders of several seeds, for example."""
    size: Positive
    """Size to fix at, in pixels."""
    vs: tuple[Published, ...] = ("v2",)
    """Published recipes to run beside: v1 (test-time preprocessing, 56 epochs), v2 (augmented, 31 epochs)."""
    epochs: Positive | None = None
    """Epochs of the published recipes; theirs when left out."""
    lr: Above0 | None = None
    """Peak learning rate of the published recipes; that of the run's own fix when left out."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    seed: int = 0
    """Seed."""


@dataclass(frozen=True, kw_only=True)
class ExportBench:
    """What `bench_export` measures."""

    formats: tuple[str, ...] = ()
    """Formats of `fixres export`, with -int8 behind those in 8 bits; left out: all. The product itself comes first."""
    sizes: tuple[Positive, ...] = ()
    """Sizes in pixels, each with a file of its own; the product's test size when left out."""
    data: str | None = None
    """Data URI, whose reported split is measured; the product's own when left out."""
    repeat: Positive = 5
    """Timed turns of every format, of half a second each."""
    batch_size: Positive | None = None
    """Pictures of a full batch; the one the product was measured with when left out."""
    workers: Count | None = None
    """Loader processes of the evaluation, one per core when left out."""
