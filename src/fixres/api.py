"""The verbs of `import fixres`: what the commands do, as functions that return values and print nothing.

A checkpoint is what `fixres.load` takes (a run folder, a model folder, `timm:NAME`, ...) or what it returned. Every
mistake is a `fixres.UserError` whose message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fixres.checkpoints.network_of import with_network
from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load, unfixed
from fixres.config import loading
from fixres.config.choices import Device, OnBadImage, SplitName
from fixres.config.recipe import Recipe
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.unlabelled import Picture, Pictures
from fixres.errors import Notice, UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product, own_split
from fixres.evaluation.results import Advice, Evaluated, Predicted, Predictions, Run
from fixres.experiments.advise import advise as _advise
from fixres.experiments.questions import Question
from fixres.inference.export.export import Exported
from fixres.inference.export.export import export as _export
from fixres.inference.extract import Extracted
from fixres.inference.extract import extract as _extract
from fixres.inference.predict import Predictor
from fixres.inference.promised import promises_of
from fixres.inference.requests import ExportRequest, ExtractRequest
from fixres.io.progress import Progress
from fixres.runtime.device import Runtime
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe
from fixres.training.start_checks import StartChecks

Checkpoint = str | Path | Product
Listener = Callable[[dict[str, Any]], None]
"""Is told every event of a run: `{"event": "train", "step": ..., "loss": ...}`."""


def _nothing(done: int, total: int) -> None:
    pass


def _opened(checkpoint: Checkpoint, *, needs_head: bool = True) -> Product:
    return checkpoint if isinstance(checkpoint, Product) else load(checkpoint, needs_head=needs_head)


def train(
    recipe: Recipe | str | Path | None,
    out: str | Path,
    *,
    resume: bool = False,
    extend: bool = False,
    take_over: bool = False,
    check_data: bool = False,
    accept_data: bool = False,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> Run:
    """Train a recipe, small first, then its fix, and write a run folder.

    Args:
        recipe: a shipped name, a YAML file, a `Recipe`, or None for the defaults.
        out: run folder; must not hold a run unless `resume`.
        resume: go on from the last checkpoint in `out`.
        extend: with `resume`, more epochs than before are allowed.
        take_over: count a run on another machine that still holds the folder as dead.
        check_data: keep a hash of every picture file when the run begins; with `resume`, compare them.
        accept_data: with `resume`, go on with picture files that changed since the run began.
        listeners: are told every event.
        **settings: laid over the recipe: `data={"uri": "folder:photos"}, train={"size": 128, "epochs": 20}`.

    Raises:
        UserError: anything wrong with the recipe, the pictures, the weights or the folder.
        Stopped: a signal came; `resume` goes on.
    """
    if isinstance(recipe, Recipe):
        if settings:
            raise UserError("a finished Recipe takes no further settings\n  recipe.model_copy, or give a file's name")
    else:
        recipe = with_network(loading.load(recipe, settings, require_data=True))
    checks = StartChecks(take_over=take_over, check_data=check_data, accept_data=accept_data)
    return run_recipe(recipe, Path(out), resume=resume, extend=extend, listeners=listeners, checks=checks)


def fix(
    checkpoint: Checkpoint,
    size: int | str,
    out: str | Path,
    *,
    data: str | None = None,
    seed: int = 0,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> Run:
    """Adapt the end of a trained network to a larger size, and write a run folder.

    Args:
        checkpoint: the network. A product that was fixed before starts as it was trained.
        size: side in pixels, or `auto`: chosen on the selecting split.
        out: run folder; must not hold a run.
        data: data URI; the product's own when left out.
        seed: of the pictures' order and of augmentation.
        listeners: are told every event.
        **settings: of the fix: moves, solver, views, epochs, lr, batch_size, augment; head_sizes: further sizes that
            get a head of their own, kept in the product.

    Raises:
        UserError: no data, a size the network cannot take, settings that do not go together.
        Stopped: a signal came.
    """
    product = unfixed(_opened(checkpoint))
    recipe = fix_recipe(product, data, {"size": size, **settings}, seed)
    return run_recipe(recipe, Path(out), listeners=listeners, split_from=own_split(product, data))


def evaluate(
    checkpoint: Checkpoint,
    data: str | None = None,
    *,
    split: SplitName | None = None,
    sizes: Sequence[int] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    on_bad_image: OnBadImage = "error",
    device: Device = "auto",
    progress: Progress = _nothing,
) -> Evaluated:
    """Measure a network on every picture of a split, at any list of sizes in one pass over the disk.

    Args:
        checkpoint: the network.
        data: data URI; the product's own when left out.
        split: train, holdout, val, test or all; the collection's reported one when left out.
        sizes: sides in pixels; the product's test size when empty.
        batch_size: pictures per batch; decides the last bits of a logit.
        workers: processes that read pictures; one per core when left out.
        on_bad_image: `error`, or `skip` to leave out and count what cannot be read.
        device: auto, cpu, cuda, npu, xpu or mps.
        progress: is told how far it is.

    Raises:
        UserError: no data, no such split or size, classes that do not fit, a picture that cannot be read.
    """
    request = EvalRequest(
        data=data,
        split=split,
        sizes=tuple(sizes),
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        device=device,
    )
    answer, found, measured, remarks = measure_product(_opened(checkpoint), request, progress)
    return Evaluated(
        **{key: answer[key] for key in ("checkpoint", "data", "split", "num_images", "num_classes")},
        results=tuple(answer["results"]),
        paths=tuple(measured.paths[int(index)] for index in found.indices),
        labels=found.labels,
        predictions=found.predictions,
        probabilities=found.probabilities,
        remarks=remarks,
    )


def predict(
    checkpoint: Checkpoint,
    pictures: Picture | Iterable[Picture],
    *,
    top_k: int = 5,
    size: int | None = None,
    threshold: float | None = None,
    coverage: float | None = None,
    abstain: float | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
) -> Predictions:
    """Name the classes of pictures. For more pictures than predictions fit in memory, use `Predictor`.

    Args:
        checkpoint: the network.
        pictures: one, or any number: paths, bytes of a file, PIL images, uint8 arrays `[H, W, 3]` or `[H, W]`. One
            path may be a folder, a table with a column `path`, or a list of paths in a .txt file; what lies in a folder
            and is passed over is told by a warning of the kind `Notice`.
        top_k: classes to name, at most all of them.
        size: side in pixels in place of the product's test size.
        threshold: best probability below which a prediction is `unsure`.
        coverage: share of pictures whose `inside` holds the right class, as the product promises: 0.8, 0.9, 0.95, 0.99.
        abstain: share of wrong answers that the product promises: 0.01, 0.02, 0.05, 0.1; the rest is `unsure`.
        batch_size: pictures computed at once.
        workers: processes that read pictures.
        device: auto, cpu, cuda, npu, xpu or mps.

    Raises:
        UserError: nothing there, a size the network cannot take, or a promise the product does not make. A picture that
            cannot be read is no error: its prediction has `error` set.
    """
    given: Iterable[Picture]
    if isinstance(pictures, str | Path):
        given = Pictures([str(pictures)])
    elif isinstance(pictures, Iterable) and not isinstance(pictures, bytes) and not hasattr(pictures, "shape"):
        given = pictures
    else:
        given = [pictures]  # type: ignore[list-item]
    product = _opened(checkpoint)
    if size is not None:
        product = product.at(size)
    if abstain is not None and threshold is not None:
        raise UserError("abstain is a threshold with a promise; give it or threshold")
    threshold = threshold if abstain is None else promises_of(product).abstains_below(abstain)
    runtime = Runtime(RuntimeSettings(device=device))
    predictor = Predictor(product, runtime, top_k, batch_size, workers=workers, threshold=threshold)
    predictor.sets = None if coverage is None else promises_of(product).sets(coverage)
    found = Predictions(
        tuple(
            Predicted(
                p.path,
                tuple(name for name, _ in p.top),
                tuple(q for _, q in p.top),
                p.size,
                p.unsure,
                p.error,
                p.inside,
            )
            for p in predictor(given)
        )
    )
    if isinstance(given, Pictures):
        for line in given.passed_over.in_words():
            warnings.warn(line, Notice, stacklevel=2)
    return found


def advise(
    checkpoint: Checkpoint,
    data: str | None = None,
    *,
    sizes: Sequence[int] = (),
    crop_ratios: Sequence[float] = (),
    budget_gmacs: float | None = None,
    budget_ms: float | None = None,
    serve_size: int | None = None,
    fixed: bool = True,
    also: Sequence[str] = (),
    corrupt: str = "",
) -> Advice:
    """Say which size to test and to fix at, from theory and from measurement on the selecting split.

    Args:
        checkpoint: the network.
        data: data URI; the product's own when left out.
        sizes: sides in pixels to measure; from the train size to twice it when empty.
        crop_ratios: to measure; the product's own and 1 when empty.
        budget_gmacs: most work for a picture, in billions of multiply-adds.
        budget_ms: most time for a picture, in milliseconds on this machine.
        serve_size: side in pixels the network will be used at; `train_size` of the answer is the one to train at.
        fixed: also fix the head at every size and measure that.
        also: data URIs of other collections of the same classes, on which every row is measured, too.
        corrupt: measure every row on spoiled pictures, too: jpeg=QUALITY, blur=PIXELS, noise=SHARE, by commas.

    Raises:
        UserError: no data, a size the network cannot take, or nothing within the budget.
    """
    question = Question(
        data=data,
        sizes=tuple(sizes),
        crop_ratios=tuple(crop_ratios),
        budget_gmacs=budget_gmacs,
        budget_ms=budget_ms,
        serve_size=serve_size,
        fixed=fixed,
        also=tuple(also),
        corrupt=corrupt,
    )
    answer = _advise(unfixed(_opened(checkpoint)), question)
    chosen: Mapping[str, Any] = answer["advice"]
    return Advice(
        **{key: chosen[key] for key in ("size", "crop_ratio", "network", "why")},
        split=answer["split"],
        num_images=answer["num_images"],
        rows=tuple(answer["rows"]),
        theory=answer["theory"],
        confirmed=answer.get("confirmed"),
        not_fixed=answer["not_fixed"],
        train_size=answer.get("train_size"),
    )


def extract(
    checkpoint: Checkpoint,
    out: str | Path,
    data: str | None = None,
    *,
    split: SplitName | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    on_bad_image: OnBadImage = "error",
    device: Device = "auto",
    progress: Progress = _nothing,
) -> Extracted:
    """Write embeddings float32 `[N, D]`, probabilities float32 `[N, C]` and labels int64 `[N]` of a split to a folder.

    The arrays of the result are mapped into memory. The same call goes on after an interruption. Features need no head:
    of weights without one, or with one for other classes, there are no probabilities, and `why_no_softmax` says why.

    Args:
        checkpoint: the network.
        out: the folder.
        data: data URI; the product's own when left out.
        split: train, holdout, val, test or all; the collection's reported one when left out.
        size: side in pixels; the product's test size when left out.
        batch_size: pictures per batch; decides the last bits of a logit.
        workers: processes that read pictures; one per core when left out.
        on_bad_image: `error`, or `skip` to leave out the row of what cannot be read.
        device: auto, cpu, cuda, npu, xpu or mps.
        progress: is told how far it is.

    Raises:
        UserError: no data, no such split or size, a folder that holds something else, no room on the disk.
        Stopped: a signal came.
    """
    request = ExtractRequest(
        data=data,
        split=split,
        size=size,
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        device=device,
    )
    return _extract(_opened(checkpoint, needs_head=False), request, Path(out), progress)


def export(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    format: str = "onnx",
    size: int | None = None,
    softmax: bool = False,
    normalise: bool = False,
    data: str | None = None,
    pictures: Sequence[str | Path] = (),
    int8: bool = False,
    calibration: str | None = None,
    max_drop: float = 1.0,
) -> Exported:
    """Write a network as one file for other programs, and compare the file with the network before it is left.

    The file takes float32 `[B, 3, H, W]` and gives `[B, C]`; `result.sheet` says which sizes it accepts and how it is
    fed. A `Product` that is given is moved to the CPU.

    Args:
        checkpoint: the network.
        out: file (.onnx, .pt2, .xml), or a folder for model.onnx and its company.
        format: `onnx`, `torch` (torch.export) or `openvino`.
        size: test size in pixels the file is meant for; the product's when left out.
        softmax: give probabilities in place of logits.
        normalise: apply mean and std inside the file, which then takes pixels from 0 to 255.
        data: data URI whose reported split the file is compared on; the product's own when left out.
        pictures: files and folders to compare on in place of data.
        int8: round an ONNX or OpenVINO file to 8 bits.
        calibration: data URI to calibrate and measure 8 bits on; the product's own when left out.
        max_drop: points of top-1 that 8 bits may cost.

    Raises:
        UserError: a package is missing, `out` cannot be written, the network cannot be exported, or the file does not
            give the network's answers; nothing is written then.
    """
    request = ExportRequest(
        out=Path(out),
        format=format,
        size=size,
        softmax=softmax,
        normalise=normalise,
        data=data,
        pictures=tuple(map(str, pictures)),
        int8=int8,
        calibration=calibration,
        max_drop=max_drop,
    )
    return _export(_opened(checkpoint), request)
