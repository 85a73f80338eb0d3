"""What the stages of a run share: a clock that goes on, how pictures are read, and which pictures they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.config.recipe import Recipe
from fixres.models.build import build_model
from fixres.training import context
from fixres.training.context import Stopwatch, image_lists
from tests.support.run_contexts import Told, make_context

Make = Callable[..., Recipe]


def test_a_stopwatch_counts_on_from_before_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(context.time, "perf_counter", lambda: now[0])
    fresh, resumed = Stopwatch(), Stopwatch(40.0)
    now[0] += 2.5
    assert (fresh.seconds, resumed.seconds) == (2.5, 42.5)


def test_a_run_reads_as_its_recipe_says(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(data={"workers": 3, "on_bad_image": "skip"}, evaluation={"batch_size": 7})
    reading = make_context(recipe, tmp_path).reading
    assert (reading.batch_size, reading.workers, reading.on_bad_image) == (7, 3, "skip")


def test_measuring_keeps_the_field_of_view_and_tells_how_far_it_is(make_recipe: Make, tmp_path: Path) -> None:
    context = make_context(make_recipe(evaluation={"batch_size": 8}), tmp_path)
    found = context.measure(build_model("test_resnet", 3), "val", [32, 48])
    assert [(result["size"], result["crop_ratio"]) for result in found.results] == [(32, 0.875), (48, 0.875)]
    assert found.num_images == len(context.collection.split("val")) == 16
    assert isinstance(context.log, Told)
    assert [(e["what"], e["done"], e["total"]) for e in context.log.events] == [
        ("measuring on val", done, 16) for done in (8, 16)
    ]


def test_image_lists_tell_other_pictures_from_the_same(make_recipe: Make, tmp_path: Path) -> None:
    first, same, more = (
        image_lists(make_context(make_recipe(data={"uri": uri}), tmp_path).collection)
        for uri in ("synthetic:classes=3,images=48", "synthetic:classes=3,images=48", "synthetic:classes=3,images=54")
    )
    assert first == same
    assert set(first) == {"train", "val", "test"}
    assert first["train"][0] == 48
    assert all(first[name] != more[name] for name in first)
