"""`fixres bench loader`: every side reads every picture, ratios are ours over theirs, mistakes are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixres.cli.main import main
from fixres.errors import UserError
from fixres.experiments.bench import loader_speed
from fixres.experiments.bench.loader_speed import bench_loader, make_photographs
from fixres.experiments.questions import LoaderBench


def test_the_command_writes_what_it_measured(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "32", "--batch-size", "7", "--repeat", "1", "--vs", "torchvision,timm", "--json", "-"]
    assert main(["bench", "loader", "--data", str(photos), *words]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    (row,) = found["results"]
    ours, torchvision, timm = (row["sides"][name] for name in ("ours", "torchvision", "timm"))
    assert found["n"] == 24
    assert found["ours"] == ours["images_per_second"] > 0
    assert found["theirs"] == torchvision["images_per_second"] > 0
    assert found["ratio"] == torchvision["ratio"]
    # One pass of each: the ratio is that of the two rates.
    for side in (torchvision, timm):
        assert side["ratio"] == pytest.approx(ours["images_per_second"] / side["images_per_second"], rel=0.01)
    assert "ours / it" in out.err


def test_eval_is_compared_with_torchvision_pixel_by_pixel(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LoaderBench(data=str(photos), size=32, batch_size=7, repeat=2, eval=True)
    assert bench_loader(settings)["within_one_level"] >= 0.999
    crop = loader_speed.evaluation_crop
    monkeypatch.setattr(loader_speed, "evaluation_crop", lambda image, preprocess: crop(image, preprocess) // 2)
    assert bench_loader(settings)["within_one_level"] < 0.5


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_every_side_reads_every_picture(photos: Path, evaluation: bool, workers: int) -> None:
    settings = LoaderBench(data=str(photos), size=32, batch_size=6, eval=evaluation, vs=("torchvision", "timm"))
    split = loader_speed._split(settings)
    for name, run in loader_speed._sides(settings, split, workers).items():
        assert sum(run()) == len(split) * (loader_speed._PASSES_OF_WORKERS if workers else 1), name


def test_memory_of_the_workers_is_measured(photos: Path) -> None:
    settings = LoaderBench(data=str(photos), size=32, batch_size=6, workers=(1,), vs=("none",), repeat=1)
    found = bench_loader(settings)
    assert found["ratio"] is None
    assert found["results"][0]["sides"]["ours"]["worker_mb"] > 5


def test_ratios_are_taken_within_a_repeat() -> None:
    times = {
        "ours": [loader_speed._Time(100, 100, 0), loader_speed._Time(10, 10, 0), loader_speed._Time(60, 60, 0)],
        "theirs": [loader_speed._Time(50, 50, 0), loader_speed._Time(5, 5, 0), loader_speed._Time(20, 20, 0)],
    }
    side: dict[str, Any] = loader_speed._row(0, times)["sides"]["theirs"]
    assert (side["ratio"], side["ratio_lowest"], side["ratio_highest"]) == (2.0, 2.0, 3.0)
    assert (side["images_per_second"], side["lowest"], side["highest"]) == (20, 5, 50)


def test_generated_pictures_are_like_photographs_and_always_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        make_photographs(folder, 3)
    files = sorted((first / "train").rglob("*.jpg"))
    assert len(files) == 3
    for file in files:
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()
        assert 25_000 < file.stat().st_size < 95_000
    assert len({file.read_bytes() for file in files}) == 3


def test_fewer_images_are_spread_over_the_split(photos: Path) -> None:
    split = loader_speed._split(LoaderBench(data=str(photos), images=10, batch_size=4))
    assert len(split) == 10
    assert set(np.unique(split.labels)) == {0, 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to measure"),
        (["lodaer"], "'lodaer' cannot be measured - did you mean 'loader'?"),
        (["loader", "--vs", "ffcv"], "ffcv"),
        (["loader", "--repeat", "0"], "repeat"),
        (["loader", "--data", "folder:/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_too_few_pictures_for_a_batch(photos: Path) -> None:
    with pytest.raises(UserError, match=r"24 training pictures in .* are no more than one batch of 50"):
        bench_loader(LoaderBench(data=str(photos)))
