"""The recipe: one frozen, checked value that says everything about a run.

A recipe file states only what differs from the defaults. `complete` fills in the rest *before* validation, so a
validated recipe has no blanks: every stage knows its own learning rate, crop and augmentation. What is saved in the
run folder is that completed recipe, and it can be run again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Triple = tuple[float, float, float]
Moves = Literal["auto", "head", "head+stats", "all"]
Augmentation = Literal["none", "flip", "dihedral", "jitter", "trivial", "randaugment", "v1", "v2"]
Crop = Literal["random", "resize", "pad", "center"]
Sampler = Literal["shuffle", "balanced", "compat"]


class Section(BaseModel):
    """Base of every part of the recipe: immutable, and no key may be unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Data(Section):
    """Where the pictures are and how they are read."""

    uri: str = ""
    """Collection: a folder, or SCHEME:BODY (folder: csv: torchvision: hf: wds: elpv: synthetic:)."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Loader processes; 0 reads in the training process; auto: one per core, at most 8."""
    decode: Literal["fast", "full"] = "fast"
    """Training JPEGs: fast, no larger than the random crop needs; full, as in testing, where it is always full."""
    hold_gib: Annotated[float, Field(ge=0)] = 1.0
    """A training split that fits (square pictures or crop center, at most flips) is kept decoded; 0: never."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an unreadable picture does; skipped ones are counted and listed, never replaced."""
    exif: Literal["apply", "ignore"] = "apply"
    """Whether the EXIF orientation turns the picture."""
    alpha: Literal["white", "ignore"] = "white"
    """Transparent pixels: composited over white, or the alpha channel dropped."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of train carved out (stratified, saved) as the selecting split when the collection has none."""
    split_seed: int = 0
    """Seed of every split that is carved."""
    license: str = ""
    """Licence of the pictures, written into the product's README."""
    sampler: Sampler = "shuffle"
    """shuffle: a permutation; balanced: every class equally often; compat: as FixRes' repeated-augmentation sampler."""
    class_weights: str = "none"
    """Loss weights: none; auto (inverse class frequency); a JSON {class: weight} or a CSV class,weight. Mean made 1."""


class Model(Section):
    """The network, by timm name or alias, and the weights it starts from."""

    name: str = "resnet18"
    """timm architecture, with a tag or without, or an alias: `fixres models`."""
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


class Optim(Section):
    """The optimizer of every stage."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: Annotated[float, Field(gt=0)] = 0.05
    """Peak learning rate of training stages (adamw: default 0.001). A fix takes 1/20 of it, with adamw all of it."""
    momentum: Fraction = 0.9
    """Momentum (sgd) or beta1 (adamw)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay, on weights of two or more dimensions only."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Gradient norm limit; 0: none."""
    state: str = ""
    """Momentum by parameter name for the first stage: the folder `fixres import --optimizer` wrote."""


class Schedule(Section):
    """Learning rate over steps."""

    name: Literal["cosine", "constant"] = "cosine"
    """Shape after the warm-up."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Linear warm-up at the start of a training stage, in epochs."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Where the cosine ends."""


class Ema(Section):
    """Exponential moving average of the weights."""

    enabled: bool = False
    """Keep an average, evaluate it and ship it."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    """Fraction of the average that is kept at each step."""
    rule: Literal["constant", "timm", "ramp"] = "ramp"
    """How the decay grows: not at all, timm's warm-up, or decay x (1 - exp(-step / ramp_steps))."""
    ramp_steps: Positive = 2000
    """Time constant of the ramp in steps."""


class Augment(Section):
    """Augmentation of training stages; a fix stage uses the test-time preprocessing unless told otherwise."""

    policy: Augmentation = "flip"
    """none (= v1), flip, dihedral (+ quarter turns), jitter (flip + colour 0.3), trivial, randaugment (+ flip), v2."""
    crop: Crop = "random"
    """random: RandomResizedCrop; resize: as in testing, any place; pad: resize, pad by 1/8, any place; center."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Area range of the random crop."""
    crop_aspect: tuple[Above0, Above0] = (3 / 4, 4 / 3)
    """Range of width / height of the random crop."""
    interpolation: Literal["test", "bilinear", "bicubic"] = "test"
    """Interpolation of training pictures; test: as evaluation.interpolation."""
    vertical_flip: Fraction = 0.0
    """Probability of turning a picture upside down."""
    rotation: tuple[float, float] = (0.0, 0.0)
    """Range of degrees a picture is turned counter-clockwise by; corners become black. ResNeXt-PyTorch: 0 270."""
    erasing: Fraction = 0.0
    """Probability of covering a random rectangle (2 to 33 % of the area) with the mean colour."""
    randaugment_ops: Positive = 2
    """Operations that randaugment applies to a picture."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of randaugment."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Mass moved from the label to all classes."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Beta parameter of mixup; 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Beta parameter of cutmix; 0: off."""


class Stage(Section):
    """One training stage. Training and fixing are the same type with different values."""

    enabled: bool
    """Whether the stage runs. Naming any fix key on the command line or in the file enables the fix stage."""
    size: Positive | Literal["auto"]
    """Side in pixels of the square the network sees; auto: a fix stage chooses it on the selecting split."""
    epochs: Positive
    """Passes over the training split, or rounds of epoch_samples."""
    batch_size: Positive
    """Global batch."""
    moves: Moves
    """Tensors the stage may change: all, head, head+stats; auto: head+stats, or head without BatchNorm."""
    crop: Crop
    """How training pictures are cropped; center is the test-time crop."""
    crop_scale: tuple[Fraction, Fraction]
    """Area range of the random crop."""
    crop_aspect: tuple[Above0, Above0] = (3 / 4, 4 / 3)
    """Range of width / height of the random crop."""
    interpolation: Literal["test", "bilinear", "bicubic"] = "test"
    """Interpolation of training pictures; test: as evaluation.interpolation."""
    augment: Augmentation
    """Augmentation policy."""
    vertical_flip: Fraction = 0.0
    """Probability of turning a picture upside down."""
    rotation: tuple[float, float] = (0.0, 0.0)
    """Range of degrees of a random rotation."""
    erasing: Fraction = 0.0
    """Probability of covering a random rectangle with the mean colour."""
    randaugment_ops: Positive = 2
    """Operations that randaugment applies to a picture."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of randaugment."""
    sampler: Sampler = "shuffle"
    """Which pictures an epoch shows, and in which order."""
    repeats: Positive = 1
    """Repeated augmentation: times a drawn picture is shown in a row, augmented differently each time."""
    epoch_samples: Positive | Above0 = 1.0
    """Samples in an epoch: a multiple of the split, with a point (1.0: as many as it has, 2.0), or a number (5000)."""
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"]
    """Shape of the learning rate after the warm-up."""
    warmup_epochs: Annotated[float, Field(ge=0)]
    """Linear warm-up in epochs."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Mass moved from the label to all classes."""
    mixup: Annotated[float, Field(ge=0)]
    """Beta parameter of mixup; 0: off."""
    cutmix: Annotated[float, Field(ge=0)]
    """Beta parameter of cutmix; 0: off."""
    ema: bool
    """Keep an average of the weights and ship it."""
    solver: Literal["sgd"]
    """How the stage is solved."""
    start_from: Literal["ema", "raw"]
    """Weights taken over from the stage before; ema: its average, when it kept one."""


class Runtime(Section):
    """Device and speed. None of it may change a result by more than rounding."""

    device: Literal["auto", "cpu", "cuda", "npu", "xpu", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: bf16 or fp16 on accelerators, fp32 on a CPU."""
    channels_last: bool = True
    """Memory layout NHWC."""
    compile: bool = False
    """torch.compile the training step's network."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0: as many as PyTorch chooses. Part of what makes a result repeat bit for bit."""
    deterministic: bool = False
    """Only deterministic kernels; an operation that has none is an error."""


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
    exact: bool = False
    """Resize, then crop, equal to torchvision bit for bit, instead of both in one call (within 1 level)."""


class Output(Section):
    """What a run leaves behind."""

    dir: str = ""
    """Run folder; empty: runs/NAME-MODEL-SIZE."""
    tracker: Literal["tensorboard", "none"] = "tensorboard"
    """Scalars for a viewer, beside metrics.jsonl."""
    log_every_steps: Positive = 10
    """Steps between log lines."""
    save_every_epochs: Positive = 1
    """Epochs between checkpoints."""


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
