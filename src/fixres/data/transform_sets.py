"""The transforms of the published codes by name, for scripts of one's own: `fixres.get_transforms("v2", 224)`.

Written from descriptions of those codes and their papers, not from the codes; they share the crops and the
augmentation of `fixres train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

from PIL import Image
from torch import Tensor

from fixres.config.recipe import Stage
from fixres.data.transforms import evaluation_crop, normalise, train_crop
from fixres.errors import UserError, did_you_mean
from fixres.resolution import Preprocess, Triple

_CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "crop_ratio": 1.0}

_HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_FED_WITH_HALVES = ("pnasnet5large", "nasnetamobile")
"""What FixRes calls the networks that are fed so."""

_TRAINING: dict[str, dict[str, Any]] = {
    "torch": {"augment": "flip"},
    "full": {"augment": "jitter"},
    "v1": {"crop": "center", "augment": "v1"},
    "v2": {"augment": "jitter"},
    "resnext": {"augment": "trivial", "rotation": (0.0, 270.0), "vertical_flip": 0.5},
    "cifar": {"crop": "pad", "augment": "flip"},
}


@dataclass(frozen=True)
class View:
    """A picture to what the network sees: PIL in, normalised float32 `[3, S, S]` out. Can be sent to other processes.

    Chance comes from torch's default generator, which a DataLoader seeds differently in every worker and epoch.
    """

    preprocess: Preprocess
    stage: Stage | None = None
    """The augmentation; None: the test-time view."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the view of a picture; one that is not RGB is converted by Pillow."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        if self.stage is None:
            pixels = evaluation_crop(image, self.preprocess)
        else:
            pixels = train_crop(image, self.stage, self.preprocess)
        return normalise(pixels[None], self.preprocess.mean, self.preprocess.std)[0]


class FixResWords(TypedDict, total=False):
    """The words of FixRes' own `get_transforms` that are not ours: any of them asks for what that function returns."""

    input_size: int
    """Another name of `size`."""
    crop: bool
    """True: a square out of the middle, as every published figure."""
    need: Sequence[str]
    """Which transforms: train, val or both; val stands for `val_train` and `val_test` too."""
    backbone: str | None
    """pnasnet5large and nasnetamobile are fed with mean and standard deviation 0.5."""


def get_transforms(
    kind: str = "full",
    size: int | None = None,
    *,
    test_size: int | None = None,
    resize: Literal["shorter", "height"] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    **theirs: Unpack[FixResWords],
) -> dict[str, View]:
    """Return the transforms of a published training code by name, as `{"train": ..., "val": ...}`.

    | kind | train | its source |
    | --- | --- | --- |
    | torch | RandomResizedCrop, flip | torchvision's ImageNet example |
    | full | the same, then colour jitter 0.3 | FixRes, training |
    | v1 | the test-time view | FixRes, first fine-tuning |
    | v2 | as full; `val_train`: resize, flip, jitter 0.05, crop shifted sideways | FixRes, second fine-tuning |
    | resnext | RandomResizedCrop, TrivialAugmentWide, rotation 0 to 270 degrees, flips both ways | ResNeXt-PyTorch |
    | cifar | padding by an eighth (4 px at 32), any place, flip | SimpleClassification on CIFAR |

    `val` is the test-time view, Resize and CenterCrop with the crop ratio 0.875 and pixels equal to torchvision's; for
    cifar the picture itself. With v2 it is called `val_test`, beside `val_train`, as users of FixRes know it. Called as
    FixRes' README calls its own, `get_transforms(input_size=224, test_size=384, kind="full", crop=True, need=("train",
    "val"), backbone=None)`, torch and full have `val`, `val_train` and `val_test`, and resize by height.

    Args:
        kind: one of the names above.
        size: side in pixels of the square the network sees in training; None: 224.
        test_size: the same for `val` (v2: `val_test` and `val_train`); None: `size`.
        resize: shorter, or height as in FixRes' released code, whose numbers depend on it for portraits; None: height
            where called as FixRes' own, else shorter.
        mean: of the pixels in [0, 1]; None: ImageNet's, for cifar CIFAR-10's as published.
        std: likewise.
        theirs: the words of FixRes' own function.

    Raises:
        UserError: an unknown kind or word, `size` and `input_size` both, or `crop=False`.
    """
    _check(kind, size, theirs)
    size = theirs.get("input_size", size) or 224
    given: dict[str, Any] = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    own = _CIFAR10 if kind == "cifar" else _HALVES if theirs.get("backbone") in _FED_WITH_HALVES else {}
    preprocess = Preprocess(size, resize=resize or ("height" if theirs else "shorter"), exact=True)
    preprocess = replace(preprocess, **{**own, **given})
    test = preprocess.at(test_size or size)
    # What v1 trains on is the test-time view, at the size it is tested at.
    train = View(test if kind == "v1" else preprocess, _stage(**_TRAINING[kind]))
    made = {"train": train}
    if kind != "v2":
        made["val"] = View(test)
    if kind == "v2" or (theirs and kind in ("torch", "full")):
        made |= {"val_train": View(test, _stage(crop="center", augment="v2")), "val_test": View(test)}
    need = theirs.get("need", ("train", "val"))
    return {name: view for name, view in made.items() if name.partition("_")[0] in need}


def _check(kind: str, size: int | None, theirs: FixResWords) -> None:
    if not isinstance(kind, str):
        raise UserError(
            f"kind is {kind!r}: the sizes come by name here\n  get_transforms(input_size={kind!r}, test_size=384)"
        )
    if kind not in _TRAINING:
        hint = did_you_mean(kind, _TRAINING)
        raise UserError(f"unknown kind of transforms '{kind}'{hint}\n  kinds: {', '.join(_TRAINING)}")
    known = FixResWords.__optional_keys__
    if unknown := [word for word in theirs if word not in known]:
        raise UserError(f"unknown argument '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    if size is not None and "input_size" in theirs:
        raise UserError(
            f"size {size} and input_size {theirs['input_size']} are two names of one thing\n  give one of them"
        )
    if not theirs.get("crop", True):
        raise UserError(
            "crop=False gives pictures of unequal sizes, which no batch can hold\n"
            "  leave it out; to see whole pictures: --resize squash or pad in `fixres eval`"
        )
    need = theirs.get("need", ())
    if isinstance(need, str) or (unknown := [name for name in need if name not in ("train", "val")]):
        raise UserError(f"need={need!r}: a list of train and val is expected\n  need=('train', 'val')")


def _stage(**values: Any) -> Stage:
    """Return a stage that augments so; what else a stage says plays no part here."""
    return Stage.model_construct(**{"crop": "random", "crop_scale": (0.08, 1.0), **values})
