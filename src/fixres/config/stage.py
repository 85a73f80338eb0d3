"""One stage of a recipe, and the types that every part of a recipe is made of.

All about a stage setting stands beside its field in `Stage`: type, meaning, default in a training stage and in a fix,
the recipe key that sets it for every stage, and what it needs. The sections of the recipe, the completion, the rules,
help and the reference page are derived from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fixres.config.registry import LOSSES, MOVES, NameIn

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Triple = tuple[float, float, float]
Moves = Annotated[str, NameIn(MOVES)]
Augmentation = Literal["none", "flip", "dihedral", "jitter", "trivial", "randaugment", "v1", "v2"]
Crop = Literal["random", "resize", "pad", "center"]
Interpolation = Literal["test", "bilinear", "bicubic"]
Sampler = Literal["shuffle", "balanced", "compat"]
NonNegative = Annotated[float, Field(ge=0)]
Factor = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Shape = Literal["cosine", "restarts", "step", "points", "constant"]
WarmupShape = Literal["linear", "quadratic"]
PublishedLength = Annotated[str, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$", title="SAMPLES/PICTURES")]
Points = tuple[tuple[NonNegative, NonNegative], ...]
LrRule = Literal["none", "linear256", "fixres"]
LossName = Annotated[str, NameIn(LOSSES)]


class Section(BaseModel):
    """Base of every part of the recipe: immutable, and no key may be unknown."""

    # Built when first needed: the recipe builds the validators of its sections once more anyway.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


@dataclass(frozen=True)
class From:
    """A default taken from another key of the recipe, times `ratio`."""

    key: str
    ratio: float = 1.0


@dataclass(frozen=True, eq=False)
class Setting:
    """What is known about a stage setting beside its type, its meaning and its default."""

    key: str = ""
    """Recipe key that sets it for every stage, and has the default; empty: only a stage itself sets it."""
    fix: Any = None
    """Default in a fix, a value or `From` another key; None: as in a training stage."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other settings without which it has no effect, and the values they must have; (): any but their default. What
    losses need of it is said in `registry.LOSSES`."""
    is_cached: bool = False
    """Whether the cached solver reads it. A fix that says anything else, such as its epochs, is solved by sgd."""
    after: str | None = None
    """Key of its section it is listed behind, empty: the first; by default the setting before it."""


FIX_LR_RATIO = 1 / 20


class Stage(Section):
    """One training stage. Training and fixing are the same type with different values."""

    enabled: Annotated[bool, Setting(is_cached=True)] = True
    """Whether the stage runs. Naming any fix key on the command line or in the file enables the fix stage."""
    size: Annotated[Positive | Literal["auto"], Setting(fix="auto", is_cached=True)] = 224
    """Side in pixels of the square the network sees; auto: a fix stage chooses it on the selecting split."""
    epochs: Annotated[Positive, Setting(fix=10)] = 30
    """Passes over the training split, or rounds of epoch_samples."""
    stop_step: Annotated[int, Field(ge=0)] = 0
    """Step after which the stage ends, in the middle of the schedule that epochs shape; 0: it runs to its end."""
    batch_size: Annotated[Positive, Setting(fix=From("train.batch_size"))] = 64
    """Global batch."""
    sizes: tuple[Positive, ...] = ()
    """Sizes to train at within the stage, in place of size, at which it is still measured; empty: size alone."""
    size_schedule: Annotated[Literal["step", "progressive", "random", "window"], Setting(needs={"sizes": ()})] = "step"
    """step: one after the other; progressive: from first to last; random: drawn per batch; window: drawn near a size
    that moves from first to last."""
    size_epochs: Annotated[
        tuple[NonNegative, ...], Setting(needs={"size_schedule": ("step", "progressive"), "sizes": ()})
    ] = ()
    """Epochs at which the sizes of step begin, or [start, end] of progressive; empty: spread over the stage."""
    size_multiple: Annotated[Positive, Setting(needs={"size_schedule": ("progressive",), "sizes": ()})] = 32
    """The sizes between first and last of progressive are multiples of it."""
    size_weights: Annotated[tuple[NonNegative, ...], Setting(needs={"size_schedule": ("random",), "sizes": ()})] = ()
    """How often random draws each size, in proportion; empty: equally often."""
    batch_rule: Annotated[Literal["constant", "area"], Setting(needs={"sizes": ()})] = "constant"
    """Batch at another size than `size`: the same; area: x (size / other)^2, in multiples of 8 from 8 on."""
    batch_sizes: Annotated[tuple[Positive, ...], Setting(needs={"sizes": ()})] = ()
    """Batch at each of sizes, in place of batch_rule."""
    batch_lr: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate follows a batch other than batch_size: in proportion, by the root of it, or not."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without a better result after which the stage ends; 0: it runs to its end."""
    moves: Annotated[Moves, Setting(fix="auto", is_cached=True)] = "all"
    """Tensors that may change; auto: head+stats, or head without BatchNorm; stats: no labels are used."""
    norm_statistics: Annotated[Literal["batch", "frozen"], Setting(is_cached=True)] = "batch"
    """batch: norms in what moves use each batch's statistics and keep a running mean of them; frozen: they use the
    running ones, which stay, and their weights still train."""
    crop: Annotated[Crop, Setting("augment.crop", fix="center")] = "random"
    """random: RandomResizedCrop; resize: as in testing, any place; pad: resize, pad by 1/8, any place; center: the
    test-time crop."""
    crop_scale: Annotated[tuple[Fraction, Fraction], Setting("augment.crop_scale")] = (0.08, 1.0)
    """Area range of the random crop."""
    crop_aspect: Annotated[tuple[Above0, Above0], Setting("augment.crop_aspect")] = (3 / 4, 4 / 3)
    """Range of width / height of the random crop."""
    interpolation: Annotated[Interpolation, Setting("augment.interpolation", fix="test")] = "test"
    """Interpolation of training pictures; test: as evaluation.interpolation."""
    augment: Annotated[Augmentation, Setting("augment.policy", fix="v1", after="")] = "flip"
    """none (= v1), flip, dihedral (+ quarter turns), jitter (flip + colour 0.3), trivial, randaugment (+ flip), v2."""
    vertical_flip: Annotated[Fraction, Setting("augment.vertical_flip", fix=0.0, after="interpolation")] = 0.0
    """Probability of turning a picture upside down."""
    rotation: Annotated[tuple[float, float], Setting("augment.rotation", fix=(0.0, 0.0))] = (0.0, 0.0)
    """Range of degrees a picture is turned counter-clockwise by; corners become black. ResNeXt-PyTorch: 0 270."""
    erasing: Annotated[Fraction, Setting("augment.erasing", fix=0.0)] = 0.0
    """Probability of covering a random rectangle (2 to 33 % of the area) with the mean colour."""
    randaugment_ops: Annotated[Positive, Setting("augment.randaugment_ops")] = 2
    """Operations that randaugment applies to a picture."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30), Setting("augment.randaugment_magnitude")] = 9
    """Strength of randaugment."""
    sampler: Annotated[Sampler, Setting("data.sampler", after="license")] = "shuffle"
    """Which pictures an epoch shows, and in which order. shuffle: a permutation; balanced: every class equally often;
    compat: as FixRes' repeated-augmentation sampler."""
    repeats: Positive = 1
    """Repeated augmentation: times a drawn picture is shown in a row, augmented differently each time."""
    epoch_samples: Positive | Above0 | PublishedLength = 1.0
    """Samples in an epoch: a multiple of the split, with a point (1.0: as many as it has, 2.0), or a number (5000);
    5000/2500: that number where the split has 2500 pictures, elsewhere the same multiple. Cached: at most the split."""
    lr: Annotated[Above0, Setting("optim.lr", fix=From("optim.lr", FIX_LR_RATIO), after="name")] = 0.05
    """Peak learning rate, the one used; worked out from base_lr where that is given. A fix takes 1/20 of optim.lr, but
    all of it unless the optimizer is SGD."""
    base_lr: Annotated[NonNegative, Setting("optim.base_lr", fix=From("optim.base_lr", FIX_LR_RATIO))] = 0.0
    """In place of lr: learning rate for the batch that lr_rule names; 0: lr is given itself."""
    lr_rule: Annotated[LrRule, Setting("optim.lr_rule")] = "none"
    """linear256 (default with base_lr): lr = base_lr x batch_size / 256; fixres: base_lr x batch_size / 64
    (= 8 x base_lr x batch / 512)."""
    schedule: Annotated[Shape, Setting("schedule.name")] = "cosine"
    """Shape of the learning rate after the warm-up: cosine, restarts, step, points or constant."""
    warmup_epochs: Annotated[NonNegative, Setting("schedule.warmup_epochs", fix=0.0)] = 1.0
    """Warm-up at the start of a stage, in epochs."""
    warmup_shape: Annotated[WarmupShape, Setting("schedule.warmup_shape")] = "linear"
    """linear: lr x (step + 1) / steps of the warm-up; quadratic: lr x (step / steps) ^ 2, from 0, as
    SimpleClassification."""
    min_lr: Annotated[NonNegative, Setting("schedule.min_lr")] = 0.0
    """Where cosine and restarts end, and below which step does not fall."""
    cycles: Annotated[Positive, Setting("schedule.cycles", needs={"schedule": ("restarts",)})] = 4
    """Cosines of equal length that restarts runs, one after the other."""
    cycle_decay: Annotated[Factor, Setting("schedule.cycle_decay", needs={"schedule": ("restarts",)})] = 1.0
    """Factor on the peak of each cycle after the first."""
    decay_epochs: Annotated[Above0, Setting("schedule.decay_epochs", needs={"schedule": ("step",)})] = 30.0
    """Epochs between the decays of step."""
    decay_factor: Annotated[Factor, Setting("schedule.decay_factor", needs={"schedule": ("step",)})] = 0.1
    """Factor of each decay of step."""
    lr_points: Annotated[Points, Setting("schedule.points", needs={"schedule": ("points",)})] = ()
    """[epoch, factor on lr] pairs that points joins by straight lines; the warm-up is part of them."""
    lr_update: Annotated[Literal["step", "epoch"], Setting("schedule.update")] = "step"
    """How often the rate changes after the warm-up: at every step, or at the start of each epoch."""
    weight_decay: Annotated[NonNegative, Setting("optim.weight_decay", after="eps")] = 1e-4
    """Weight decay."""
    freeze: tuple[str, ...] = ()
    """Parameters that stay as they are (moves all): module names, or patterns such as `*.bias`; see training.md."""
    loss: Annotated[LossName, Setting("loss.name")] = "ce"
    """ce (cross-entropy), bce (binary cross-entropy of every class) or focal."""
    loss_gamma: Annotated[NonNegative, Setting("loss.gamma")] = 2.0
    """Exponent of focal: how much less a picture counts that is classified right already; 0: ce."""
    loss_threshold: Annotated[Share, Setting("loss.threshold")] = 0.0
    """bce: targets above it count as 1, all others as 0; 0: targets as they are."""
    label_smoothing: Annotated[Share, Setting("augment.label_smoothing", is_cached=True)] = 0.0
    """Mass moved from the label to all classes."""
    teacher: Annotated[str, Setting("distill.teacher", fix="")] = ""
    """Network to learn from: a checkpoint as in model.weights; empty: none."""
    distill_alpha: Annotated[Fraction, Setting("distill.alpha")] = 0.5
    """Share of the teacher's loss; the rest is the loss on the labels."""
    distill_temperature: Annotated[Above0, Setting("distill.temperature")] = 1.0
    """Logits of both networks are divided by it before they are compared."""
    mixup: Annotated[NonNegative, Setting("augment.mixup", fix=0.0)] = 0.0
    """Beta parameter of mixup; 0: off."""
    cutmix: Annotated[NonNegative, Setting("augment.cutmix", fix=0.0)] = 0.0
    """Beta parameter of cutmix; 0: off."""
    ema: Annotated[bool, Setting("ema.enabled", fix=False)] = False
    """Keep an average of the weights, evaluate it and ship it."""
    solver: Annotated[Literal["auto", "cached", "sgd"], Setting(is_cached=True)] = "sgd"
    """cached: the frozen trunk runs once, the head is solved on its features; sgd: epochs, as published; auto: cached
    where the network's head suits it, else sgd."""
    views: Annotated[int, Field(ge=1, le=10), Setting(is_cached=True)] = 2
    """cached: views of a picture to take features of: the test-time crop, its mirror image, then shifted crops; head
    solved takes the first two at most."""
    decay: Annotated[NonNegative, Setting(is_cached=True)] = 0.0
    """cached: strength of the pull on the head, relative to the mean variance of the features; 0: chosen on the
    selecting split."""
    cache_gib: Annotated[float, Field(ge=0), Setting(is_cached=True)] = 2.0
    """cached: memory and disk for what need not be computed twice; past it, it is."""
    head: Annotated[Literal["keep", "new", "solved"], Setting(is_cached=True)] = "keep"
    """Head a stage starts with. keep: as it comes; new: random weights; solved: logistic regression on the features of
    the training split at the stage's size, by the cached solver."""
    head_sizes: Annotated[tuple[Positive, ...], Setting(needs={"solver": ("cached", "auto")}, is_cached=True)] = ()
    """cached: further sizes that get a head and last-norm statistics of their own, kept in the product."""
    mix: Annotated[Annotated[float, Field(gt=0, le=1)] | Literal["auto"], Setting(is_cached=True)] = 1.0
    """Of a fix: share of what it found, the rest of what it changed as before; auto: the least loss on the selecting
    split and in the collections of mix_also."""
    mix_also: Annotated[tuple[str, ...], Setting(is_cached=True)] = ()
    """Data URIs of other collections of the same classes, on whose reported splits auto looks too."""
    start_from: Annotated[Literal["ema", "raw"], Setting(is_cached=True)] = "ema"
    """Weights taken over from the stage before; ema: its average, when it kept one."""


SETTINGS = {
    name: next((mark for mark in field.metadata if isinstance(mark, Setting)), Setting())
    for name, field in Stage.model_fields.items()
}
"""What is known about each field of `Stage`."""


class SharedSection(Section):
    """Base of the sections with settings for every stage: beside its own, it has the fields of `Stage` that name it."""

    def __init_subclass__(cls, **settings: Any) -> None:
        """Put the fields of `Stage` whose key begins with the section's name among its own, before pydantic looks."""
        super().__init_subclass__(**settings)
        names = list(cls.__annotations__)
        place = 0
        for field_name, setting in SETTINGS.items():
            section, _, name = setting.key.partition(".")
            if section != cls.__name__.lower():
                continue
            given = Stage.model_fields[field_name]
            if setting.after is not None:
                place = names.index(setting.after) + 1 if setting.after else 0
            names.insert(place, name)
            place += 1
            cls.__annotations__[name] = given.annotation
            setattr(cls, name, copy(given))
        cls.__annotations__ = {name: cls.__annotations__[name] for name in names}
