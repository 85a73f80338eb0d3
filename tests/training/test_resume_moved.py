"""A run whose pictures lie in another place goes on there, if they are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.config.loading import load as load_recipe
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.reporting.gallery import open_pictures
from fixres.reporting.run_record import read_run
from fixres.runtime.run_folder import read_events
from fixres.training.resume import moved
from fixres.training.run import run_recipe
from fixres.training.start_checks import StartChecks
from tests.support.shared_runs import stamps

Make = Callable[..., Recipe]


@pytest.fixture
def recipe(make_recipe: Make, photos: Path) -> Recipe:
    """Return a recipe for pictures in one folder of classes: val and test are carved out and kept in split.json."""
    shutil.rmtree(photos / "val")
    (photos / "train").rename(photos.with_name("before"))
    return at(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 4}), photos.with_name("before"))


def at(recipe: Recipe, place: Path) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"uri": f"folder:{place}"})})


def stopped_run(recipe: Recipe, run: Path) -> Path:
    run_recipe(recipe, run)
    (run / "status.json").unlink()
    return run


def notes(run: Path) -> list[str]:
    return [event["text"] for event in read_events(run) if event["event"] == "note"]


def require_named_everywhere(run: Path, place: Path) -> None:
    """Require that whatever reads the run's pictures later finds them in `place`, divided as they were."""
    uri = f"folder:{place}"
    assert load_recipe(run / "recipe.yaml").data.uri == uri
    assert measure_product(load(run), EvalRequest(workers=0, batch_size=16)).answer["data"] == uri
    pictures = open_pictures(read_run(run))
    assert not isinstance(pictures, str)
    assert sorted(pictures.paths) == sorted(json.loads((run / "split.json").read_text())["parts"]["test"])


def test_a_stopped_run_goes_on_in_the_new_place_and_says_so_once(recipe: Recipe, tmp_path: Path) -> None:
    run = stopped_run(recipe, tmp_path / "r")
    place = (tmp_path / "before").rename(tmp_path / "after")
    run_recipe(at(recipe, place), run, resume=True)
    said = f"the data moved from folder:{tmp_path}/before to folder:{place}: the same list of pictures"
    assert notes(run) == [said]
    begins = [event["text"] for event in read_events(run) if event["event"] == "begin"]
    assert begins[1] == "start: from the checkpoint at step 3 of stage 1"
    require_named_everywhere(run, place)


def test_a_finished_run_names_the_new_place_and_is_else_left_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "r"
    run_recipe(recipe, run)
    place = (tmp_path / "before").rename(tmp_path / "after")
    before = stamps(run)
    run_recipe(at(recipe, place), run, resume=True)
    now = stamps(run)
    assert {name for name in now if now[name] != before.get(name)} == {
        "recipe.yaml",
        "model/config.json",
        "metrics.jsonl",
    }
    assert len(notes(run)) == 1
    require_named_everywhere(run, place)


def test_the_old_place_that_is_gone_is_answered_with_what_to_type(recipe: Recipe, tmp_path: Path) -> None:
    run = stopped_run(recipe, tmp_path / "r")
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(
        UserError, match=r"there is no folder (.|\n)*in another place now, name it: --data\.uri folder:DIR"
    ):
        run_recipe(recipe, run, resume=True)


def test_another_list_is_refused_with_what_differs(recipe: Recipe, tmp_path: Path) -> None:
    run = stopped_run(recipe, tmp_path / "r")
    before = stamps(run)
    place = (tmp_path / "before").rename(tmp_path / "after")
    (place / "red" / "00.jpg").rename(place / "red" / "99.jpg")
    (place / "blue" / "00.jpg").unlink()
    with pytest.raises(
        UserError,
        match=r"made for other pictures \(24 then, 23 now(.|\n)*"
        r"not there now: blue/00\.jpg, red/00\.jpg; new: red/99\.jpg\n  if they lie in another place now",
    ):
        run_recipe(at(recipe, place), run, resume=True)
    assert stamps(run) == before


def test_other_sizes_in_the_new_place_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "r"
    run_recipe(recipe, run)
    place = (tmp_path / "before").rename(tmp_path / "after")
    shutil.copyfile(place / "red" / "01.jpg", place / "red" / "00.jpg")
    with pytest.raises(UserError, match=r"1 of 24 picture files changed .* red/00\.jpg"):
        run_recipe(at(recipe, place), run, resume=True)
    run_recipe(at(recipe, place), run, resume=True, checks=StartChecks(accept_data=True))
    assert [note.partition(" ")[0] for note in notes(run)] == ["the", "1"]


def test_other_classes_of_a_table_are_refused(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    def table(name: str, other: str) -> Recipe:
        rows = [
            f"{path.relative_to(tmp_path)},{'blue' if path.parent.name == 'blue' else other},{path.parts[-3]}"
            for path in sorted(photos.rglob("*.jpg"))
        ]
        (tmp_path / name).write_text("\n".join(["path,label,split", *rows]) + "\n")
        return make_recipe(
            data={"uri": f"csv:{tmp_path / name}", "holdout": 0}, train={"size": 32, "epochs": 1, "batch_size": 8}
        )

    run = stopped_run(table("one.csv", "red"), tmp_path / "r")
    with pytest.raises(UserError, match=r"the classes of .* began with: 'red' then, 'rosy' now\n  bring back"):
        run_recipe(table("two.csv", "rosy"), run, resume=True)
    run_recipe(table("three.csv", "red"), run, resume=True)
    assert len(notes(run)) == 1


def test_a_place_is_all_that_may_differ() -> None:
    def recipe(uri: str) -> str:
        return f'data: {{uri: "{uri}"}}'

    for old, new in (
        ("folder:/a", "folder:/b"),
        ("csv:/a/t.csv", "csv:/b/u.csv?root=/c"),
        ("wds:/a/{0..9}.tar", "wds:s3://b/{0..9}.tar"),
        ("torchvision:CIFAR10?root=/a", "torchvision:CIFAR10?root=/b"),
        ("hf:/a/rows?label=y", "hf:/b/rows?label=y"),
    ):
        assert moved(recipe(old), recipe(new)) == (old, new)
        assert moved(recipe(old), recipe(old)) is None
    for old, new in (
        ("folder:/a", "csv:/a/t.csv"),
        ("csv:/a/t.csv", "csv:/a/t.csv?label=kind"),
        ("synthetic:classes=3", "synthetic:classes=3,seed=1"),
        ("torchvision:MNIST?root=/a", "torchvision:KMNIST?root=/a"),
        ("hf:owner/rows?revision=1", "hf:owner/rows?revision=2"),
    ):
        assert moved(recipe(old), recipe(new)) is None
