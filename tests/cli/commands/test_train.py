"""`fixres train` on good and on bad folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.cli.commands import train as train_command
from fixres.config.loading import load
from fixres.errors import Stopped
from fixres.experiments import advise_pictures, refit
from fixres.models.build import build_model
from fixres.reporting.run_record import read_run
from fixres.runtime.run_folder import read_events
from tests.support.command_line import FAST, Run, break_folder, snapshot


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("empty class", "green"),
        ("class only in val", "holds classes that train does not have: green"),
        ("text named jpg", "03.jpg"),
        ("truncated", "03.jpg"),
        ("one class", "only one class"),
        ("bomb", "03.jpg"),
    ],
)
def test_bad_folders_have_one_message_and_exit_2(
    fixres: Run, photos: Path, tmp_path: Path, fault: str, said: str
) -> None:
    break_folder(photos, fault)
    before = snapshot(photos)
    code, out, err = fixres("train", "--data.uri", photos, *FAST, "--out", "run")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert snapshot(photos) == before


@pytest.mark.parametrize("fault", ["text named jpg", "truncated", "bomb"])
def test_unreadable_pictures_can_be_left_out_and_are_counted(
    fixres: Run, photos: Path, tmp_path: Path, fault: str
) -> None:
    break_folder(photos, fault)
    code, _, err = fixres(
        "train", "--data.uri", photos, *FAST, "--data.on_bad_image", "skip", "--data.holdout", "0", "--out", "run"
    )
    assert code == 0, err
    assert "1 picture left out because they cannot be read" in err
    assert any(e["event"] == "bad_images" and "03.jpg" in e["paths"][0] for e in read_events(tmp_path / "run"))


def test_pictures_of_every_kind_train(fixres: Run, photos: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    folder = photos / "train" / "red"
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    image.convert("P").save(folder / "palette.png", transparency=0)
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    code, _, err = fixres("train", "--data.uri", photos, *FAST, "--out", "run")
    assert code == 0, err


def test_a_skipped_picture_does_not_upset_mixup(fixres: Run, photos: Path) -> None:
    break_folder(photos, "text named jpg")
    words = ("--data.on_bad_image", "skip", "--augment.mixup", "0.5", "--data.holdout", "0", "--out", "run")
    code, _, err = fixres("train", "--data.uri", photos, *FAST, *words)
    assert code == 0, err


def test_resuming_without_out_goes_on_in_the_newest_folder(fixres: Run, tmp_path: Path) -> None:
    words = ("train", "--data.uri", "synthetic:images=16,size=32", *FAST)
    assert [fixres(*words)[0], fixres(*words)[0], fixres(*words, "--resume")[0]] == [0, 0, 0]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["run-test_resnet-32", "run-test_resnet-32-2"]


def test_dry_run_writes_nothing(fixres: Run, tmp_path: Path) -> None:
    code, _, err = fixres("train", "--data.uri", "synthetic:images=64", *FAST, "--dry-run")
    assert code == 0
    assert "8 steps of [8, 3, 32, 32]" in err
    assert "first batch of train: [8, 3, 32, 32], " in err
    assert all(f"first batch of {name}: [" in err for name in ("val", "test"))
    assert "read in" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("solver", ["sgd", "cached"])
def test_dry_run_finds_an_unreadable_picture_in_the_first_batches(
    fixres: Run, photos: Path, split: str, solver: str, tmp_path: Path
) -> None:
    for path in (photos / split / "red").iterdir():
        path.write_bytes(b"no picture")
    words = ["train", "--data.uri", f"folder:{photos}", *FAST, "--dry-run"]
    if solver == "cached":
        torch.save(build_model("test_resnet", 2).state_dict(), tmp_path / "weights.pt")
        words += ["--model.weights", str(tmp_path / "weights.pt"), "--train.enabled", "false"]
        words += ["--fix.size", "32", "--fix.solver", "cached"]
    code, _, err = fixres(*words)
    assert code == 2
    assert f"{split}/red/" in err
    assert "--data.on_bad_image skip" in err
    code, _, err = fixres(*words, "--data.on_bad_image", "skip", "--data.max_bad_images", "1")
    assert code == 0, err
    assert "left out (" in err


@pytest.mark.parametrize("solver", ["sgd", "cached"])
def test_pictures_that_are_skipped_are_named_whatever_they_were_for(
    fixres: Run, photos: Path, solver: str, tmp_path: Path
) -> None:
    bad = {f"{split}/red/{next((photos / split / 'red').iterdir()).name}" for split in ("train", "val")}
    for path in bad:
        (photos / path).write_bytes(b"no picture")
    words = ["train", "--data.uri", f"folder:{photos}", *FAST, "--out", str(tmp_path / "run")]
    if solver == "cached":
        torch.save(build_model("test_resnet", 2).state_dict(), tmp_path / "weights.pt")
        words += ["--model.weights", str(tmp_path / "weights.pt"), "--train.enabled", "false"]
        words += ["--fix.size", "32", "--fix.solver", "cached"]
    code, _, err = fixres(*words, "--data.on_bad_image", "skip")
    assert code == 0, err
    told = [event for event in read_events(tmp_path / "run") if event["event"] == "bad_images"]
    assert sorted(path for event in told for path in event["paths"]) == sorted(bad)
    assert told[-1]["num_bad_images"] == 2
    assert (
        f"were left out: 2 ({', '.join(p for e in told for p in e['paths'])})" in read_run(tmp_path / "run").notes[-1]
    )
    assert "2 pictures left out because they cannot be read" in err


def test_dry_run_shows_the_pace_of_a_published_recipe_on_other_pictures(fixres: Run) -> None:
    few = ("--model.name", "test_resnet", "--train.batch_size", "16", "--fix.batch_size", "16")
    few = (*few, "--train.size", "32", "--fix.size", "48", "--evaluation.sizes", "32,48")
    uri = "synthetic:classes=3,images=144,size=48"
    code, _, err = fixres("train", "fixres/resnet50-224-fix384-v1", "--data.uri", uri, *few, "--dry-run")
    assert code == 0, err
    for line in (
        "note: an epoch of stage train is 2 x the 144 pictures here, 288 samples: the 2,562,560 of",
        "  an epoch: 288 samples of 144 pictures, 18 steps; images seen in 120 epochs: 34,560, 240.0 a picture",
        "  learning rate 0.005 (0.02 x 16 / 64, fixres): step, 0.005 at the first step and 5e-06 at the last; no warm",
        "  an epoch: 144 samples of 144 pictures, 9 steps; images seen in 56 epochs: 8,064, 56.0 a picture",
    ):
        assert line in err
    code, _, err = fixres("train", "simple/cub-resnet18", "--data.uri", uri, *few[:4], "--dry-run")
    assert "learning rate 0.05: cosine, 0 at the first step and" in err
    assert "warm-up 5 epochs (45 steps, quadratic)" in err
    code, _, err = fixres("train", "--data.uri", uri, "--model.weights", "none", *FAST, "--fix.size", "48", "--dry-run")
    assert "  no epochs and no learning rate: the head is solved on 2 views of each picture" in err


def test_a_run_goes_on_with_moved_pictures_and_with_changed_ones_where_told_so(
    fixres: Run, photos: Path, tmp_path: Path
) -> None:
    words = ("train", "run/recipe.yaml", "--out", "run", "--resume")
    code, _, err = fixres("train", "--data.uri", photos, *FAST, "--data.holdout", "0", "--out", "run", "--check-data")
    assert code == 0, err
    (tmp_path / "run" / "status.json").unlink()
    moved = photos.rename(tmp_path / "moved")
    code, _, err = fixres(*words)
    assert code == 2
    assert "name it: --data.uri folder:DIR" in err
    shutil.copyfile(moved / "train" / "red" / "01.jpg", moved / "train" / "red" / "00.jpg")
    code, _, err = fixres(*words, "--data.uri", moved)
    assert code == 2
    assert "train/red/00.jpg" in err
    assert "add --accept-data" in err
    code, _, err = fixres(*words, "--data.uri", moved, "--accept-data", "--check-data")
    assert code == 0, err
    assert f"note: the data moved from folder:{photos} to folder:{moved}" in err
    assert "note: 33 of 34 picture files have the same contents as before" in err


DATA = "synthetic:classes=3,images=48,size=48"


def test_the_defaults_say_what_is_shorter(fixres: Run) -> None:
    code, out, err = fixres("train", "--data.uri", DATA, *FAST, "--dry-run")
    assert code == 0, err
    assert f"\n  fixres train {DATA}\n" in out + err
    Path("my.yaml").write_text(f"data: {{uri: '{DATA}'}}\n")
    code, out, err = fixres("train", "my.yaml", *FAST, "--dry-run")
    assert code == 0, err
    assert "fixres train synth" not in out + err


def test_weights_that_name_their_network_name_the_models(fixres: Run, trained_run: Path, tmp_path: Path) -> None:
    settings = [*FAST[2:], "--data.uri", DATA, "--model.weights", str(trained_run), "--quiet"]
    code, _, err = fixres("train", *settings, "--out", "r")
    assert code == 0, err
    assert load(tmp_path / "r" / "recipe.yaml").model.name == load(trained_run / "recipe.yaml").model.name
    code, _, err = fixres("train", *settings, "--model.name", "resnet18", "--out", "s")
    assert code == 2
    assert "not 'resnet18'" in err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_are_a_number_above_0(fixres: Run, photos: Path, minutes: str) -> None:
    code, _, err = fixres("train", photos, "--minutes", minutes, "--out", "run")
    assert code == 2
    assert f"--minutes: expected a number > 0, got '{minutes}'" in err


@pytest.mark.parametrize(
    ("pictures", "name"),
    [
        ("照片", "照片"),
        ("hünd/", "hünd"),
        ("a/my photos", "my-photos"),
        ("..", "photos"),
        ("csv:a/labels.csv?root=b", "labels"),
    ],
)
def test_a_run_is_named_after_its_pictures(
    pictures: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_command._folder_for(pictures, False) == Path("runs") / name


def test_a_refit_that_is_stopped_says_what_goes_on_with_it(
    fixres: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stopped

    (tmp_path / "runs" / "photos").mkdir(parents=True)
    (tmp_path / "runs" / "photos" / "status.json").write_text('{"state": "done"}', encoding="utf-8")
    monkeypatch.setattr(refit, "refit", stop)
    monkeypatch.setattr(refit, "require_own", lambda *_: None)
    code, out, err = fixres("train", photos, "--final", "--resume")
    assert code == 75
    assert f"go on with: fixres train {photos} --final --resume --out runs/photos" in out + err


def test_a_run_of_pictures_that_is_finished_is_not_begun_anew(
    fixres: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refit, "require_own", lambda *_: None)
    for folder in ("run", "run/final"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "status.json").write_text('{"state": "done"}', encoding="utf-8")
    code, out, err = fixres("train", photos, "--resume", "--out", "run")
    assert (code, out) == (0, "")
    assert f"run is finished: there is nothing left to do\n  fixres train {photos} --out run --final" in err
    code, out, err = fixres("train", photos, "--final", "--out", "run")
    assert (code, out) == (0, "")
    assert "run/final is finished: there is nothing left to do\n  fixres eval run" in err


def test_a_dry_run_of_pictures_says_what_is_tried_and_begins_nothing(fixres: Run, photos: Path, tmp_path: Path) -> None:
    words = ["train", photos, "--dry-run", "--minutes", "2", "--models", "package:efficientnet-lite0"]
    code, _, err = fixres(*words)
    assert code == 0, err
    assert "within 2 min: networks and sizes are tried" in err
    assert "networks: package:efficientnet-lite0\n  sizes to try, as far as the time goes: 96, 128" in err
    assert not (tmp_path / "runs").exists()
    next((photos / "train" / "red").iterdir()).write_bytes(b"no picture")
    code, _, err = fixres(*words)
    assert code == 2
    assert "train/red/" in err
    assert fixres(*words, "--data.on_bad_image", "skip")[0] == 0


def test_advice_on_pictures_that_is_interrupted_leaves_nothing_to_resume(
    fixres: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(advise_pictures, "advise_pictures", stop)
    code, _, err = fixres("advise", photos)
    assert (code, err) == (130, "fixres: interrupted\n")
