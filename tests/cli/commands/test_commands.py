"""The commands as a user types them, on good and on bad input: exit codes, one message, nothing lost."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.runtime.run_folder import read_events

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fixres(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


FAST = ("--model.name", "test_resnet", "--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8")
FAST = (*FAST, "--data.workers", "0", "--output.tracker", "none", "--runtime.threads", "1")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_way_of_a_user_with_a_folder(fixres: Run, photos: Path, tmp_path: Path) -> None:
    before = snapshot(photos)
    (tmp_path / "my.yaml").write_text(
        f"data: {{uri: 'folder:{photos}', workers: 0}}\n"
        "model: {name: test_resnet}\n"
        "optim: {lr: 1e-2}\n"
        "train: {size: 32, epochs: 2, batch_size: 8}\n"
        "fix: {size: 64, epochs: 1}\n"
        "runtime: {threads: 1}\n"
    )
    code, out, err = fixres("train", "my.yaml", "--out", "run")
    assert (code, out) == (0, "")
    assert "report on val" in err
    assert "trains 2 tensors" in err
    for name in ("recipe.yaml", "environment.json", "metrics.jsonl", "status.json", "split.json", "model/README.md"):
        assert (tmp_path / "run" / name).is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"

    code, out, err = fixres("eval", "run", "--json", "out.json")
    answer = json.loads((tmp_path / "out.json").read_text())
    row = [e for e in read_events(tmp_path / "run") if e["event"] == "comparison"][-1]["rows"][-1]
    assert (code, out) == (0, "")
    assert "repeats the logged result exactly" in err
    assert {k: answer["results"][0][k] for k in ("size", "top1", "loss", "ece")} == {
        k: row[k] for k in ("size", "top1", "loss", "ece")
    }
    assert (answer["split"], answer["num_images"], answer["num_classes"]) == ("val", 10, 2)

    code, out, _ = fixres("eval", "run/model", "--sizes", "32,48,64", "--json", "-", "--predictions", "p.csv")
    assert [r["size"] for r in json.loads(out)["results"]] == [32, 48, 64]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {row["label"] for row in rows} == {"red", "blue"}
    for size, result in zip((32, 48, 64), json.loads(out)["results"], strict=True):
        right = [r["label"] == r["prediction"] for r in rows if r["size"] == str(size)]
        assert result["top1"] == 100 * sum(right) / 10

    picture = photos / "val" / "red" / "00.jpg"
    code, out, _ = fixres("predict", "run/model", picture, "--format", "json")
    (prediction,) = json.loads(out)
    assert code == 0
    assert {t["name"] for t in prediction["top"]} == {"red", "blue"}
    assert sum(t["probability"] for t in prediction["top"]) == pytest.approx(1)
    assert prediction["size"] == 64

    code, _, err = fixres("fix", "run", "--size", "96", "--moves", "head", "--epochs", "1", "--out", "fixed")
    assert code == 0
    assert "moves head: trains 2 tensors" in err
    code, _, _ = fixres("report", "run", "fixed", "--out", "page.html")
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!")
    code, _, _ = fixres("train", "run/recipe.yaml", "--out", "again")
    assert code == 0
    weights = "model/model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()
    assert snapshot(photos) == before


def break_folder(root: Path, fault: str) -> None:
    picture = root / "train" / "red" / "03.jpg"
    if fault == "empty class":
        (root / "train" / "green").mkdir()
    elif fault == "class only in val":
        shutil.copytree(root / "val" / "red", root / "val" / "green")
    elif fault == "text named jpg":
        picture.write_text("this is no picture")
    elif fault == "truncated":
        picture.write_bytes(picture.read_bytes()[:400])
    elif fault == "one class":
        shutil.rmtree(root / "train" / "blue")
        shutil.rmtree(root / "val" / "blue")
    elif fault == "bomb":
        bomb(picture)


def bomb(path: Path) -> None:
    # 30,000 x 30,000 pixels in a header, without the pixels.
    Image.new("L", (8, 8)).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--data.uri", "nowhere"), "nowhere"),
        (
            ("train", "--data.uri", "synthetic:", "--model.name", "resnett18"),
            "unknown model 'resnett18' - did you mean",
        ),
        (("train", "--data.uri", "synthetic:", "--train.sise", "32"), "train.size"),
        (("train", "missing.yaml"), "missing.yaml"),
        (
            ("train", "--data.uri", "synthetic:images=16", *FAST, "--train.batch_size", "99"),
            "--train.batch_size 16 is the largest that works",
        ),
        (
            ("train", "--data.uri", "synthetic:", *FAST, "--model.name", "test_vit", "--train.size", "50"),
            "cannot take 50 px\n  it takes 32",
        ),
        (("train", "--data.uri", "synthetic:", *FAST, "--model.weights", "gone.pth"), "gone.pth"),
        (("train", "--data.uri", "synthetic:", *FAST, "--runtime.device", "cuda"), "runtime.device cuda"),
        (("eval", "nowhere"), "nowhere does not exist"),
        (("eval",), "CHECKPOINT is missing"),
        (("predict", "nowhere", "x.jpg"), "nowhere does not exist"),
        (("fix", "nowhere", "--size", "64"), "nowhere does not exist"),
        (("fix", "nowhere", "--size", "big"), "size"),
        (("report",), "RUNS is missing"),
        (("report", "nowhere"), "nowhere"),
        (("study", "elpv-demo", "--seeds", "a,b"), "--seeds"),
        (("study", "elpv-demo"), "fixres study elpv-demo --seeds 0,1,2"),
        (("eval", "nowhere", "--batch-size", "0"), "batch"),
        (("eval", "nowhere", "--workers", "-1"), "workers"),
        (("eval", "nowhere", "--sizes", "0"), "size"),
        (("predict", "nowhere", "x.jpg", "--top-k", "0"), "top"),
        (("train", "--data.uri", "synthetic:", "--train.enabled", "false", "--fix.size", "64"), "random network"),
        (("train", "--data.uri", "synthetic:", *FAST, "--train.size", "100000"), "from 1 to 4096"),
        (("train", "--data.uri", "synthetic:", *FAST, "--out", "/proc/x"), "cannot write"),
        (("trian",), "did you mean 'train'"),
    ],
)
def test_mistakes_have_one_message_and_exit_2(fixres: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    code, out, err = fixres(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("fixres: ")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


def test_a_skipped_picture_does_not_upset_mixup(fixres: Run, photos: Path) -> None:
    break_folder(photos, "text named jpg")
    words = ("--data.on_bad_image", "skip", "--augment.mixup", "0.5", "--data.holdout", "0", "--out", "run")
    code, _, err = fixres("train", "--data.uri", photos, *FAST, *words)
    assert code == 0, err


def test_a_fix_on_other_pictures_has_a_split_of_its_own(fixres: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "train", tmp_path / "flat")
    fixres("train", "--data.uri", photos, *FAST, "--out", "run")
    code, _, err = fixres("fix", "run", "--size", "48", "--epochs", "1", "--data", tmp_path / "flat", "--out", "f")
    assert code == 0, err
    assert set(json.loads((tmp_path / "f" / "split.json").read_text())["parts"]) == {"val", "test"}


def test_predict_goes_on_after_a_bad_picture_and_exits_2(fixres: Run, photos: Path, tmp_path: Path) -> None:
    fixres("train", "--data.uri", photos, *FAST, "--out", "run")
    folder = photos / "val" / "red"
    (folder / "01.jpg").write_text("no picture")
    code, out, err = fixres("predict", "run", folder, "--format", "jsonl", "--top-k", "1")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert len(rows) == 5
    assert [bool(row.get("error")) for row in rows] == [False, True, False, False, False]
    assert "01.jpg" in err
    code, out, _ = fixres("predict", "run", f"{folder}/0[23].jpg", "--format", "csv")
    assert code == 0
    assert [row["path"] for row in csv.DictReader(out.splitlines())] == [str(folder / "02.jpg"), str(folder / "03.jpg")]


def test_study_puts_seeds_side_by_side(fixres: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "data: {uri: 'synthetic:classes=3,images=48,size=48', workers: 0}\n"
        "model: {name: test_resnet}\n"
        "train: {size: 32, epochs: 1, batch_size: 16}\n"
        "fix: {size: 64, epochs: 1}\n"
        "output: {tracker: none}\n"
    )
    code, _, err = fixres("study", "s.yaml", "--seeds", "0,1", "--out", "st")
    assert code == 0, err
    table = json.loads((tmp_path / "st" / "study.json").read_text())
    runs = [tmp_path / "st" / f"seed-{seed}" for seed in (0, 1)]
    fixed = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["rows"][-1]["top1"] for r in runs]
    assert table["rows"][-1]["top1"] == fixed
    paired = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["paired"]["difference"] for r in runs]
    assert table["top1_difference"]["per_seed"] == pytest.approx(paired)
    assert table["top1_difference"]["mean"] == pytest.approx(sum(paired) / 2)
    losses = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["rows"] for r in runs]
    expected = [rows[-1]["loss"] - rows[0]["loss"] for rows in losses]
    assert table["loss_difference"]["per_seed"] == pytest.approx(expected, abs=1e-5)
    code, _, err = fixres("study", *runs)
    assert code == 0
    assert "2 seeds (0, 1)" in err
    code, _, err = fixres("study", runs[0], runs[0])
    assert (code, "a seed comes twice" in err) == (2, True)
    fixres("train", "s.yaml", "--optim.lr", "0.01", "--seed", "2", "--out", "other")
    code, _, err = fixres("study", runs[0], "other")
    assert (code, "different recipes" in err, "optim.lr" in err) == (2, True, True)


def test_doctor_tells_what_is_here(fixres: Run) -> None:
    code, _, err = fixres("doctor", "--offline")
    assert code == 0
    assert "a sum over 2 processes (gloo) works" in err
    assert "extra demo: installed" in err


def test_resuming_without_out_goes_on_in_the_newest_folder(fixres: Run, tmp_path: Path) -> None:
    words = ("train", "--data.uri", "synthetic:images=16,size=32", *FAST)
    assert [fixres(*words)[0], fixres(*words)[0], fixres(*words, "--resume")[0]] == [0, 0, 0]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["run-test_resnet-32", "run-test_resnet-32-2"]


def test_dry_run_writes_nothing(fixres: Run, tmp_path: Path) -> None:
    code, _, err = fixres("train", "--data.uri", "synthetic:images=64", *FAST, "--dry-run")
    assert code == 0
    assert "8 steps of [8, 3, 32, 32]" in err
    assert not list(tmp_path.iterdir())
