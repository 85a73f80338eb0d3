"""Batches: bit-equal for any number of workers, complete, resumable, and clear about pictures that cannot be read."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import warnings
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fixres.config.recipe import Data, Stage
from fixres.data import loader, transforms
from fixres.data.collections import open_collection, open_splits
from fixres.data.decode import Alpha, Exif
from fixres.data.loader import (
    Batch,
    Draw,
    ReadPolicy,
    evaluation_batches,
    train_batches,
)
from fixres.data.progressive_sizes import stage_timeline, steps_per_epoch
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from tests.support.batches import random_crops, same, training_batches

SPLIT = open_collection(Data(uri="synthetic:classes=3,images=22,size=24")).split("train")


def stage(**values: Any) -> Stage:
    """Return a stage of 16 px and batches of 5, with the given fields."""
    return random_crops(**({"size": 16, "epochs": 2, "batch_size": 5, "augment": "jitter"} | values))


def trained(split: Split = SPLIT, **options: Any) -> list[Batch]:
    """Return all batches of a stage."""
    return training_batches(split, **({"stage": stage()} | options))


@pytest.fixture
def damaged(tmp_path: Path) -> Split:
    """Return 12 training pictures in two classes, of which the third, b/000.png, is a text file."""
    for name, num in (("train/a", 2), ("train/b", 10), ("val/a", 1), ("test/a", 1)):
        (tmp_path / name).mkdir(parents=True)
        for k in range(num):
            Image.new("RGB", (20, 20), (k, 100, 0)).save(tmp_path / name / f"{k:03}.png")
    (tmp_path / "train" / "b" / "000.png").write_text("words")
    return open_collection(Data(uri=str(tmp_path))).split("train")


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    assert same(trained(workers=workers), trained(workers=0))


def test_a_stage_is_all_its_epochs_of_full_batches() -> None:
    batches = trained()
    assert len(batches) == 8
    for batch in batches:
        assert (batch.images.shape, batch.images.dtype) == ((5, 3, 16, 16), torch.uint8)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.tolist() == SPLIT.labels[batch.indices.numpy()].tolist()
    for epoch in (batches[:4], batches[4:]):
        seen = torch.cat([batch.indices for batch in epoch]).tolist()
        assert len(set(seen)) == 20
    assert not torch.equal(batches[0].indices, batches[4].indices)


def test_every_picture_is_drawn_anew_in_every_epoch() -> None:
    views: dict[int, list[torch.Tensor]] = {}
    for batch in trained(stage=stage(epochs=4)):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            views.setdefault(index, []).append(image)
    repeated = [seen for seen in views.values() if len(seen) > 1]
    assert repeated
    assert not any(torch.equal(seen[0], seen[1]) for seen in repeated)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first_step", [1, 4, 6, 8])
def test_starting_later_gives_the_rest_of_the_same_batches(first_step: int, workers: int) -> None:
    assert same(trained(first_step=first_step, workers=workers), trained()[first_step:])


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage_index": 1}])
def test_seed_and_stage_change_order_and_augmentation(change: dict[str, int]) -> None:
    first, second = trained(), trained(**change)
    assert not torch.equal(first[0].indices, second[0].indices)
    whole = {"stage": stage(batch_size=22, epochs=1)}
    a, b = trained(**whole)[0], trained(**whole, **change)[0]
    assert not torch.equal(a.images[a.indices.argsort()], b.images[b.indices.argsort()])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_generator_that_training_uses_is_left_alone(workers: int) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    batches = train_batches(SPLIT, stage(), Preprocess(16), Draw(0, 0), ReadPolicy(workers))
    next(batches)
    first = torch.rand(1)
    next(batches)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_augmentation_does_not_depend_on_what_was_drawn_before() -> None:
    torch.manual_seed(1)
    first = trained()
    torch.manual_seed(2)
    torch.rand(10)
    assert same(first, trained())


@pytest.mark.parametrize("section", ["train", "stages.1"])
def test_a_batch_larger_than_the_split_names_the_largest_that_works(section: str) -> None:
    with pytest.raises(UserError) as caught:
        stage_timeline(SPLIT, stage(batch_size=23), 16, seed=0, stage_index=0, key=section)
    assert f"{section}.batch_size 23 is larger than the split 'train' (22 pictures)" in str(caught.value)
    assert f"--{section}.batch_size 22 is the largest that works" in str(caught.value)
    assert steps_per_epoch(SPLIT, stage(batch_size=22)) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_stops_with_one_clear_message(damaged: Split, workers: int) -> None:
    for run in (
        lambda: trained(damaged, stage=stage(batch_size=4), workers=workers),
        lambda: list(evaluation_batches(damaged, [Preprocess(16)], 4, ReadPolicy(workers))),
    ):
        with pytest.raises(UserError) as caught:
            run()
        assert str(caught.value) == (
            "train/b/000.png: not a picture in any format that can be read\n"
            "  remove it, or leave such pictures out: "
            "--data.on_bad_image skip in training, --on-bad-image skip in eval"
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_picture_is_left_out_and_listed_once(damaged: Split, workers: int) -> None:
    bad: list[str] = []
    batches = trained(damaged, stage=stage(batch_size=4, epochs=3), workers=workers, on_bad_image="skip", bad=bad)
    assert bad == ["train/b/000.png"]
    assert [len(batch.labels) for batch in batches].count(3) == 3
    assert Counter(torch.cat([batch.indices for batch in batches]).tolist()) == {k: 3 for k in range(12) if k != 2}
    bad = []
    measured = list(evaluation_batches(damaged, [Preprocess(16)], 5, ReadPolicy(workers, on_bad_image="skip"), bad=bad))
    assert torch.cat([indices for _, _, indices in measured]).tolist() == [0, 1, *range(3, 12)]
    assert all(len(views[0]) == len(labels) for views, labels, _ in measured)
    assert bad == ["train/b/000.png"]


def ruined(root: Path, num: int, num_bad: int) -> Split:
    """Return `num` training pictures of which the last `num_bad` are text files."""
    (root / "train" / "a").mkdir(parents=True)
    (root / "train" / "b").mkdir()
    for k in range(num):
        path = root / "train" / "ab"[k % 2] / f"{k:03}.png"
        if k < num - num_bad:
            Image.new("RGB", (20, 20), (k % 256, 100, 0)).save(path)
        else:
            path.write_text("words")
    return open_splits(Data(uri=str(root)))[1]["train"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_copies_of_one_bad_picture_is_empty(damaged: Split, workers: int) -> None:
    bad: list[str] = []
    repeated = stage(batch_size=3, repeats=3, epoch_samples=3.0, epochs=1)
    batches = trained(damaged, stage=repeated, workers=workers, on_bad_image="skip", bad=bad)
    assert sorted(len(batch.labels) for batch in batches) == [0, *[3] * 11]
    (empty,) = (batch for batch in batches if not len(batch.labels))
    assert (tuple(empty.images.shape), empty.images.dtype) == ((0, 3, 16, 16), torch.uint8)
    assert (empty.labels.dtype, empty.indices.dtype) == (torch.int64, torch.int64)
    assert bad == ["train/b/000.png"]


@pytest.mark.parametrize("num_bad", [10, 11])
def test_ten_bad_pictures_may_be_left_out_of_any_split_and_not_more(tmp_path: Path, num_bad: int) -> None:
    split = ruined(tmp_path, 40, num_bad)
    bad: list[str] = []
    run = stage(batch_size=4, epochs=1)
    if num_bad == 10:
        batches = trained(split, stage=run, on_bad_image="skip", bad=bad)
        assert sum(len(batch.labels) for batch in batches) == 30
        assert len(bad) == 10
        return
    with pytest.raises(UserError) as caught:
        trained(split, stage=run, on_bad_image="skip", bad=bad)
    told = str(caught.value)
    assert "11 pictures of 'train' cannot be read, and 10 of its 40 may be left out" in told
    assert all(name in told for name in bad[:5])
    assert "--data.max_bad_images 0.55" in told
    assert len(trained(split, stage=run, on_bad_image="skip", max_bad_images=0.55)) == 10


def test_a_split_of_bad_pictures_alone_is_never_trained_on(tmp_path: Path) -> None:
    split = ruined(tmp_path, 4, 4)
    with pytest.raises(UserError, match="none of the 4 pictures of 'train' can be read"):
        trained(split, stage=stage(batch_size=2, epochs=1), on_bad_image="skip", max_bad_images=1.0)
    bad: list[str] = []
    assert not list(evaluation_batches(split, [Preprocess(16)], 1, ReadPolicy(on_bad_image="skip"), bad=bad))
    assert len(bad) == 4


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_evaluation_sees_every_picture_once_in_order_at_every_size(workers: int) -> None:
    preprocesses = [Preprocess(16), Preprocess(24, resize="pad"), Preprocess(16, interpolation="bicubic")]
    batches = list(evaluation_batches(SPLIT, preprocesses, 6, ReadPolicy(workers)))
    assert [len(labels) for _, labels, _ in batches] == [6, 6, 6, 4]
    assert torch.cat([indices for _, _, indices in batches]).tolist() == list(range(22))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == SPLIT.labels.tolist()
    for place, preprocess in enumerate(preprocesses):
        views = torch.cat([views[place] for views, _, _ in batches])
        expected = torch.stack([transforms.evaluation_crop(SPLIT.read(k), preprocess) for k in range(22)])
        assert torch.equal(views, expected)


class CountingSource:
    """A source that counts how often every picture is read, and under which policy."""

    def __init__(self) -> None:
        self.reads: Counter[tuple[str, str, str]] = Counter()

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return a grey picture."""
        self.reads[path, exif, alpha] += 1
        return Image.new("RGB", (20, 20))


def test_every_picture_is_read_once_for_all_sizes_under_the_policy_of_the_preprocessing() -> None:
    source = CountingSource()
    split = replace(SPLIT, source=source, exif="apply", alpha="white")
    sizes = [Preprocess(size, exif="ignore", alpha="ignore") for size in (8, 16, 24)]
    list(evaluation_batches(split, sizes, 5))
    assert source.reads == {(path, "ignore", "ignore"): 1 for path in split.paths}


def test_a_bug_in_a_source_is_not_taken_for_a_bad_picture() -> None:
    class Broken:
        def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
            raise ZeroDivisionError

    split = replace(SPLIT, source=Broken())
    with pytest.raises(ZeroDivisionError):
        list(evaluation_batches(split, [Preprocess(16)], 5, ReadPolicy(on_bad_image="skip")))


def test_workers_outlive_signals_meant_for_the_main_process() -> None:
    others = multiprocessing.active_children()
    batches = train_batches(SPLIT, stage(epochs=30), Preprocess(16), Draw(0, 0), ReadPolicy(2))
    # The second batch is the second worker's: both have started.
    first_two = [next(batches), next(batches)]
    workers = [worker for worker in multiprocessing.active_children() if worker not in others]
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        for sent in (signal.SIGINT, signal.SIGUSR1):
            os.kill(worker.pid, sent)
    assert len(first_two + list(batches)) == 30 * 4
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def test_workers_end_when_the_batches_are_no_longer_wanted() -> None:
    others = multiprocessing.active_children()
    batches = train_batches(SPLIT, stage(epochs=30), Preprocess(16), Draw(0, 0), ReadPolicy(2))
    next(batches)
    workers = [worker for worker in multiprocessing.active_children() if worker not in others]
    assert len(workers) == 2
    del batches
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def test_workers_end_at_once_after_a_bad_picture(damaged: Split) -> None:
    others = multiprocessing.active_children()
    # What is caught keeps the frames that read alive, so nobody else ends the workers.
    with pytest.raises(UserError, match=r"train/b/000\.png") as _caught:
        trained(damaged, stage=stage(batch_size=4), workers=2)
    assert [worker for worker in multiprocessing.active_children() if worker not in others] == []


def test_more_workers_than_cores_are_the_users_choice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(evaluation_batches(SPLIT, [Preprocess(8)], 1, ReadPolicy(9)))) == 22


def test_auto_is_one_worker_per_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_workers(3) == 3
    assert resolve_workers(0) == 0
    for cores, expected in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert resolve_workers("auto") == expected


def test_what_is_sent_to_a_worker_makes_the_same_batches_after_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes are not forked (macOS, new Python versions) the work travels as a pickle."""
    sent: list[Any] = []

    def remember(items: Any, *_: Any) -> Generator[Any]:
        sent.append(items)
        yield from ()

    monkeypatch.setattr(loader, "read_items", remember)
    trained()
    list(evaluation_batches(SPLIT, [Preprocess(16)], 6))
    assert len(sent) == 2
    for dataset in sent:
        made, copied = dataset[1], pickle.loads(pickle.dumps(dataset))[1]
        assert torch.equal(made.views[0], copied.views[0])
        assert torch.equal(made.indices, copied.indices)
