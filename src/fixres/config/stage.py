"""One stage of a recipe, and the types that every part of a recipe is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Triple = tuple[float, float, float]
Moves = Literal["auto", "head", "head+stats", "head+norm", "last-stage", "stats", "all"]
Augmentation = Literal["none", "flip", "dihedral", "jitter", "trivial", "randaugment", "v1", "v2"]
Crop = Literal["random", "resize", "pad", "center"]
Sampler = Literal["shuffle", "balanced", "compat"]
NonNegative = Annotated[float, Field(ge=0)]
Factor = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Shape = Literal["cosine", "restarts", "step", "points", "constant"]
WarmupShape = Literal["linear", "quadratic"]
Points = tuple[tuple[NonNegative, NonNegative], ...]
LrRule = Literal["none", "linear256", "fixres"]
LossName = Literal["ce", "bce", "focal"]


class Section(BaseModel):
    """Base of every part of the recipe: immutable, and no key may be unknown."""

    # Built when first needed: the recipe builds the validators of its sections once more anyway.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


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
    sizes: tuple[Positive, ...] = ()
    """Sizes to train at within the stage, in place of size, at which it is still measured; empty: size alone."""
    size_schedule: Literal["step", "progressive", "random", "window"] = "step"
    """step: one after the other; progressive: from first to last; random: drawn per batch; window: drawn near a size
    that moves from first to last."""
    size_epochs: tuple[NonNegative, ...] = ()
    """Epochs at which the sizes of step begin, or [start, end] of progressive; empty: spread over the stage."""
    size_multiple: Positive = 32
    """The sizes between first and last of progressive are multiples of it."""
    size_weights: tuple[NonNegative, ...] = ()
    """How often random draws each size, in proportion; empty: equally often."""
    batch_rule: Literal["constant", "area"] = "constant"
    """Batch at another size than `size`: the same; area: x (size / other)^2, in multiples of 8 from 8 on."""
    batch_sizes: tuple[Positive, ...] = ()
    """Batch at each of sizes, in place of batch_rule."""
    batch_lr: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate follows a batch other than batch_size: in proportion, by the root of it, or not."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without a better result after which the stage ends; 0: it runs to its end."""
    moves: Moves
    """Tensors that may change; auto: head+stats, or head without BatchNorm; stats: no labels are used."""
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
    lr: Above0
    """Peak learning rate, the one used; worked out from base_lr where that is given."""
    base_lr: NonNegative = 0.0
    """Learning rate for the batch that lr_rule names; 0: lr was given itself."""
    lr_rule: LrRule = "none"
    """linear256: lr = base_lr x batch_size / 256; fixres: base_lr x batch_size / 64 (= 8 x base_lr x batch / 512)."""
    schedule: Shape
    """Shape of the learning rate after the warm-up."""
    warmup_epochs: NonNegative
    """Warm-up in epochs."""
    warmup_shape: WarmupShape = "linear"
    """linear: lr x (step + 1) / steps of the warm-up; quadratic: lr x (step / steps) ^ 2, from 0."""
    min_lr: NonNegative = 0.0
    """Where cosine and restarts end, and below which step does not fall."""
    cycles: Positive = 4
    """Cosines of equal length that restarts runs, one after the other."""
    cycle_decay: Factor = 1.0
    """Factor on the peak of each cycle after the first."""
    decay_epochs: Above0 = 30.0
    """Epochs between the decays of step."""
    decay_factor: Factor = 0.1
    """Factor of each decay of step."""
    lr_points: Points = ()
    """[epoch, factor on lr] pairs that points joins by straight lines; the warm-up is part of them."""
    lr_update: Literal["step", "epoch"] = "step"
    """How often the rate changes after the warm-up: at every step, or at the start of each epoch."""
    weight_decay: NonNegative
    """Weight decay."""
    freeze: tuple[str, ...] = ()
    """Parameters that stay as they are (moves all): module names, or patterns such as `*.bias`; see training.md."""
    loss: LossName = "ce"
    """ce (cross-entropy), bce (binary cross-entropy of every class) or focal."""
    loss_gamma: NonNegative = 2.0
    """Exponent of focal: how much less a picture counts that is classified right already; 0: ce."""
    loss_threshold: Share = 0.0
    """bce: targets above it count as 1, all others as 0; 0: targets as they are."""
    label_smoothing: Share
    """Mass moved from the label to all classes."""
    teacher: str = ""
    """Network to learn from: a checkpoint as in model.weights; empty: none."""
    distill_alpha: Fraction = 0.5
    """Share of the teacher's loss; the rest is the loss on the labels."""
    distill_temperature: Above0 = 1.0
    """Logits of both networks are divided by it before they are compared."""
    mixup: Annotated[float, Field(ge=0)]
    """Beta parameter of mixup; 0: off."""
    cutmix: Annotated[float, Field(ge=0)]
    """Beta parameter of cutmix; 0: off."""
    ema: bool
    """Keep an average of the weights and ship it."""
    solver: Literal["auto", "cached", "sgd"]
    """cached: the frozen trunk runs once, the head is solved on its features; sgd: epochs, as published; auto: cached
    where the network's head suits it, else sgd."""
    views: Annotated[int, Field(ge=1, le=10)] = 2
    """cached: views of a picture to take features of: the test-time crop, its mirror image, then shifted crops."""
    cache_gib: Annotated[float, Field(ge=0)] = 2.0
    """cached: memory and disk for what need not be computed twice; past it, it is."""
    start_from: Literal["ema", "raw"]
    """Weights taken over from the stage before; ema: its average, when it kept one."""
