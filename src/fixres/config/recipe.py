"""The recipe: one frozen, checked value that says everything about a run.

A recipe file states only what differs from the defaults. `complete` fills in the rest *before* validation, so a
validated recipe has no blanks: every stage knows its own learning rate, crop and augmentation. What is saved in the
run folder is that completed recipe, and it can be run again.

The sections that set something for every stage, `schedule` with all its keys or `optim` with lr, have those fields from
`Stage`, which says of each where it belongs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fixres.config.choices import Decode, Device, OnBadImage
from fixres.config.stage import (
    Above0,
    Factor,
    Fraction,
    NonNegative,
    Positive,
    Section,
    Share,
    SharedSection,
    Stage,
    Triple,
)

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]
DROPPED_TRACKERS = ("comet_ml", "aim", "clearml", "dvclive", "swanlab")


class Data(SharedSection):
    """Where the pictures are and how they are read."""

    uri: str = ""
    """Collection: a folder, or SCHEME:BODY such as csv:FILE or hf:NAME; docs/data.md lists the schemes."""
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    """Loader processes; 0 reads in the training process; auto: one per core, at most 8."""
    decode: Decode = "fast"
    """Training JPEGs: fast, no larger than the random crop needs; full, as in testing, where it is always full."""
    hold_gib: Annotated[float, Field(ge=0)] = 1.0
    """A training split that fits (square pictures or crop center, at most flips) is kept decoded; 0: never."""
    on_bad_image: OnBadImage = "error"
    """What an unreadable picture does; skipped ones are counted and listed, never replaced."""
    max_bad_images: Fraction = 0.01
    """Share of a training split that on_bad_image skip may leave out, at least 10 pictures; more stop the run."""
    exif: Literal["apply", "ignore"] = "apply"
    """Whether the EXIF orientation turns the picture."""
    alpha: Literal["white", "ignore"] = "white"
    """Transparent pixels: composited over white, or the alpha channel dropped."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of train carved out (stratified, saved) as the selecting split when the collection has none."""
    train_on: Literal["train", "all"] = "train"
    """all: every picture with a label, those to select and to report on too; nothing is chosen or measured."""
    split_seed: int = 0
    """Seed of every split that is carved."""
    license: str = ""
    """Licence of the pictures, written into the product's README."""
    class_weights: str = "none"
    """Loss weights: none; auto (inverse class frequency); a JSON {class: weight} or a CSV class,weight. Mean made 1."""


class Model(Section):
    """The network, by timm name or alias, and the weights it starts from."""

    name: str = "resnet18"
    """timm architecture, with a tag or without, or an alias: `fixres models`. Left out: what model.weights names."""
    weights: str = "none"
    """none (random), pretrained (timm's own), a run or model folder, a weights file, or timm: hf-hub: fixres: url:."""
    num_classes: Positive | Literal["data"] = "data"
    """Classes of the head; data: as many as the collection has."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model, for example drop_path_rate."""
    init: Literal["timm", "torch", "kaiming_fan_out"] = "timm"
    """How random weights are drawn."""
    zero_init_last: bool | Literal["init"] = "init"
    """Last norm of each residual block starts at 0; false as in ResNeXt-PyTorch; init: as model.init has it."""
    mean: Triple | Literal["model"] = "model"
    """Per-channel mean of the input in [0, 1]; model: what the network was trained with."""
    std: Triple | Literal["model"] = "model"
    """Per-channel standard deviation of the input in [0, 1]."""


class Optim(SharedSection):
    """The optimizer of every stage. Defaults are those of sgd; the others bring their own: docs/training.md."""

    name: Literal["sgd", "nesterov", "adamw", "lamb", "lion", "muon"] = "sgd"
    """Optimizer."""
    momentum: Fraction = 0.9
    """Momentum (sgd, nesterov, muon) or beta1 (adamw, lamb, lion)."""
    beta2: Share = 0.999
    """Second beta of adamw, lamb, lion and of what muon does to vectors."""
    eps: Above0 = 1e-8
    """Added to the denominator (adamw, lamb, muon)."""
    no_decay: Literal["vectors", "none"] | tuple[str, ...] = "vectors"
    """Without weight decay: vectors (biases, norms, what timm exempts), none, or these modules and name patterns."""
    layer_decay: Factor = 1.0
    """Factor on the learning rate from each layer group to the one before it, the head being the last; 1: off."""
    clip_norm: NonNegative = 0.0
    """Gradient norm limit; 0: none."""
    state: str = ""
    """Momentum by parameter name for the first stage: the folder `fixres import --optimizer` wrote."""


class Schedule(SharedSection):
    """Learning rate over steps."""


class Loss(SharedSection):
    """What a training step minimises. Measured losses are always cross-entropy."""


class Distill(SharedSection):
    """Learning from a teacher in training stages; a fix has none unless it names its own."""


class Ema(SharedSection):
    """Exponential moving average of the weights."""

    decay: Share = 0.9998
    """Fraction of the average that is kept at each step."""
    rule: Literal["constant", "timm", "ramp"] = "ramp"
    """How the decay grows: not at all, timm's warm-up, or decay x (1 - exp(-step / ramp_steps))."""
    ramp_steps: Positive = 2000
    """Time constant of the ramp in steps."""


class Augment(SharedSection):
    """Augmentation of training stages; a fix stage uses the test-time preprocessing unless told otherwise."""


class Runtime(Section):
    """Device and speed. None of it may change a result by more than rounding."""

    device: Device = "auto"
    """Where to compute."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: bf16 or fp16 on accelerators, fp32 on a CPU."""
    channels_last: bool = True
    """Memory layout NHWC."""
    compile: bool = False
    """torch.compile the training step's network."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0: PyTorch's choice, within a CPU quota. Part of what makes a result repeat bit for bit."""
    deterministic: bool = False
    """Only deterministic kernels; an operation that has none is an error."""
    micro_batch: Positive | Literal["auto"] = "auto"
    """Pictures per forward pass of a process, gradients added up; auto: its whole share, halved when memory ends."""
    sync_bn: bool = False
    """BatchNorm statistics over all processes in training; accelerators only."""
    wait_seconds: Above0 = 1800.0
    """Seconds the processes wait for a late one before the run stops and names it."""


class Evaluation(Section):
    """How accuracy is measured."""

    sizes: tuple[Positive, ...] = ()
    """Sizes measured on the selecting split, around a fix or at the end; empty: candidates, or the stage's own."""
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 0.875
    """size / resize_size of the test-time crop."""
    resize: Literal["shorter", "height", "squash", "pad"] = "shorter"
    """shorter side to resize_size; height: as FixRes' released code; squash: ignore the aspect; pad: show all of it."""
    interpolation: Literal["model", "bilinear", "bicubic"] = "model"
    """Interpolation in training and testing; model: what the network was trained with."""
    batch_size: Positive = 64
    """Pictures per evaluation batch."""
    select_size: Positive | Literal["stage"] = "stage"
    """Size at which the best checkpoint of a stage is chosen; stage: its own."""
    every_epochs: Positive = 1
    """Epochs between evaluations on the selecting split."""
    keep: Literal["best", "last"] = "best"
    """Which weights of a stage ship: the best on the selecting split, or the last."""
    control: bool = True
    """After a cached fix, also solve the head at the train size: it tells what the size alone gained."""
    ship: Literal["last", "best"] = "last"
    """What ships. last: what the last stage made; best: of that, of the network before a fix, and of a head solved on
    the starting network, by the loss on the selecting split."""
    probe_sizes: tuple[Positive, ...] = ()
    """Sizes at which ship best solves a head on the starting network; empty: the train size and that of the fix."""
    also: tuple[str, ...] = ()
    """Other collections of the same classes, by data URI, on which before and after a fix are measured, too."""
    corrupt: str = ""
    """The same on reported pictures that are spoiled: jpeg=QUALITY, blur=PIXELS, noise=SHARE, several by commas."""
    exact: bool = False
    """Resize, then crop, equal to torchvision bit for bit, instead of both in one call (within 1 level)."""


class Output(Section):
    """What a run leaves behind."""

    dir: str = ""
    """Run folder; empty: runs/NAME-MODEL-SIZE."""
    tracker: Tracker | tuple[Tracker, ...] = "tensorboard"
    """Where numbers are shown beside metrics.jsonl: one or several; those of Accelerate need their package."""
    log_every_steps: Positive = 10
    """Steps between log lines."""
    save_every_epochs: Positive = 1
    """Epochs between checkpoints."""
    save_every_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints within an epoch; 0: none."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 15.0
    """Minutes between checkpoints within an epoch; 0: none."""
    keep_newest: Annotated[int, Field(ge=0)] = 0
    """Newest checkpoints kept as checkpoints/step-*.pt beside last.pt."""


class Recipe(Section):
    """Everything about a run. `stages` takes the place of `train` and `fix` when it is not empty."""

    seed: int = 0
    """Seed of initialisation, order and augmentation."""
    data: Data = Data()
    model: Model = Model()
    train: Stage
    """The first stage."""
    fix: Stage
    """The last stage; runs when enabled."""
    stages: tuple[Stage, ...] = ()
    """Any number of stages in place of train and fix."""
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    distill: Distill = Distill()
    ema: Ema = Ema()
    augment: Augment = Augment()
    runtime: Runtime = Runtime()
    evaluation: Evaluation = Evaluation()
    output: Output = Output()

    @property
    def run_stages(self) -> tuple[Stage, ...]:
        """The stages this recipe runs, in order."""
        given = self.stages or (self.train, self.fix)
        return tuple(stage for stage in given if stage.enabled)

    @property
    def chooses(self) -> bool:
        """Whether the selecting split decides anything: which epoch ships, when to stop, a size, a solver's pull."""
        chosen_pulls = [(s.solver != "sgd" or s.head == "solved") and not s.decay for s in self.run_stages]
        sizes_and_ends = [s.size == "auto" or s.mix == "auto" or s.patience for s in self.run_stages]
        is_asked = "best" in (self.evaluation.keep, self.evaluation.ship)
        return is_asked or any(chosen_pulls) or any(sizes_and_ends)
