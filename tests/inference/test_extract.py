"""Extracted arrays are those of the evaluation, whatever stopped the work in between, and score says the same."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.inference.extract import extract
from fixres.inference.requests import ExtractRequest
from fixres.inference.score_arrays import open_arrays, score
from fixres.io.array_store import Rows
from fixres.models.anatomy import head_names
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from tests.support.several import run_processes

FILES = ("embedding.npy", "softmax.npy", "labels.npy", "outcomes.npy", "index.csv")
DATA = "synthetic:classes=7,images=147,size=40"
SAME: dict[str, Any] = {"data": DATA, "split": "train", "workers": 0, "device": "cpu"}


def make(name: str = "test_resnet", size: int = 32, seed: int = 0, num_classes: int = 7) -> Product:
    torch.manual_seed(seed)
    model = build_model(name, num_classes, init="torch").eval()
    classes = tuple(f"class-{i}" for i in range(num_classes))
    return Product(model, name, classes, Preprocess(size), size, "raw", {}, False, {}, "memory")


def ask(batch_size: int = 16, **more: Any) -> ExtractRequest:
    return ExtractRequest(**{**SAME, "batch_size": batch_size, **more})


def content(folder: Path) -> dict[str, bytes]:
    assert not list(folder.glob("*.part"))
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_extract_then_score_is_eval(tmp_path: Path, name: str) -> None:
    answer, found, split, _ = measure_product(make(name), EvalRequest(**SAME, batch_size=16))
    extract(make(name), ask(), tmp_path / "x")
    (arrays,) = open_arrays(tmp_path / "x")
    scored, measured = score(arrays), answer["results"][0]
    assert scored["source"] == "outcomes"
    assert scored["num_images"] == answer["num_images"] == len(split)
    for key in ("top1", "top1_ci95", "top5", "loss", "num_near_ties"):
        assert scored[key] == measured[key], key
    for key in ("ece", "balanced_accuracy", "macro_f1"):
        # One sum of a few terms that are equal bit for bit; only its order is the library's.
        assert scored[key] == pytest.approx(measured[key], rel=1e-14, abs=0), key
    assert np.array_equal(arrays.labels, found.labels)
    assert np.array_equal(np.asarray(arrays.outcomes)["loss"], found.losses[0])
    assert np.array_equal(arrays.softmax.argmax(1), found.predictions[0])
    assert arrays.softmax.dtype == np.float32
    (tmp_path / "x" / "outcomes.npy").unlink()
    (alone,) = open_arrays(tmp_path / "x")
    from_softmax = score(alone)
    assert from_softmax["source"] == "softmax"
    assert {k: from_softmax[k] for k in ("top1", "top5")} == {k: measured[k] for k in ("top1", "top5")}
    assert from_softmax["loss"] == pytest.approx(measured["loss"], rel=1e-6)
    assert from_softmax["ece"] == pytest.approx(measured["ece"], abs=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_the_classifier_applied_to_the_embedding_gives_the_probabilities(tmp_path: Path, name: str) -> None:
    product = make(name)
    found = extract(product, ask(), tmp_path / "x")
    head = product.model.get_submodule(head_names(product.model)[0])
    with torch.inference_mode():
        again = head(torch.from_numpy(np.array(found.embedding()))).softmax(1)
    assert found.embedding().shape == (147, found.embedding_size)
    assert np.allclose(again.numpy(), found.softmax(), atol=1e-6)
    with (tmp_path / "x" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"].partition("-")[0]) for row in rows] == found.labels().tolist()
    assert len({row["path"] for row in rows}) == 147


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    extract(make(), ask(), tmp_path / "one")
    for result in run_processes(2, lambda: extract(make(), ask(), tmp_path / "two").num_images):
        assert result == 147
    assert content(tmp_path / "two") == content(tmp_path / "one")


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("place", range(0, 12, 3))
def test_after_a_kill_the_arrays_are_equal_and_finished_rows_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    extract(make(), ask(), tmp_path / "whole")
    write, written = Rows.write, []

    def stop_at(self: Rows, batch: int, first: int, blocks: Any) -> None:
        if len(written) == place:
            raise Killed
        write(self, batch, first, blocks)
        written.append(batch)

    monkeypatch.setattr(Rows, "write", stop_at)
    if place < 10:
        with pytest.raises(Killed):
            extract(make(), ask(), tmp_path / "x")
        with pytest.raises(UserError, match="not finished"):
            open_arrays(tmp_path / "x")
        place = -1
    found = extract(make(), ask(), tmp_path / "x")
    assert content(tmp_path / "x") == content(tmp_path / "whole")
    assert sorted(written) == list(range(10))
    assert found.num_images == 147
    again = extract(make(), ask(), tmp_path / "x")
    assert again.num_resumed == 147


def test_a_kill_while_the_files_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(make(), ask(), tmp_path / "whole")
    replace = Path.replace
    for count in range(6):
        out = tmp_path / f"x{count}"
        left = [count]

        def stop(self: Path, target: Path, left: list[int] = left) -> Path:
            if self.name.endswith(".npy.part"):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            if count < 4:
                with pytest.raises(Killed):
                    extract(make(), ask(), out)
        extract(make(), ask(), out)
        assert content(out) == content(tmp_path / "whole")


def folder_with_damage(photos: Path) -> Path:
    (photos / "train" / "red" / "03.jpg").write_text("no picture")
    (photos / "train" / "blue" / "07.jpg").write_bytes(b"")
    return photos


def test_unreadable_pictures_are_left_out_and_listed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(folder_with_damage(photos))
    # Batches of one picture: two of them hold nothing that can be read.
    wanted = {"data": data, "split": "train", "batch_size": 1}
    product = make(num_classes=2)
    with pytest.raises(UserError, match=r"\d\d\.jpg"):
        extract(product, ask(**wanted), tmp_path / "x")
    found = extract(product, ask(**wanted, on_bad_image="skip"), tmp_path / "x")
    assert (found.num_images, len(found.bad_images)) == (22, 2)
    answer, measured, split, _ = measure_product(
        make(num_classes=2), EvalRequest(**{**SAME, **wanted}, on_bad_image="skip")
    )
    (arrays,) = open_arrays(tmp_path / "x")
    assert score(arrays)["top1"] == answer["results"][0]["top1"]
    assert score(arrays)["loss"] == answer["results"][0]["loss"]
    with (tmp_path / "x" / "index.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [split.paths[int(i)] for i in measured.indices]
    # Killed when some files are shorter already.
    out, done = tmp_path / "y", Rows._finish_one

    def stop(self: Rows, name: str, kept: np.ndarray) -> None:
        if name == "labels":
            raise Killed
        done(self, name, kept)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "_finish_one", stop)
        with pytest.raises(Killed):
            extract(make(num_classes=2), ask(**wanted, on_bad_image="skip"), out)
    again = extract(make(num_classes=2), ask(**wanted, on_bad_image="skip"), out)
    assert again.bad_images == found.bad_images
    assert content(out) == content(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"product": {"seed": 1}}, "other weights"),
        ({"product": {"size": 48}}, "size 32, asked for is 48"),
        ({"request": {"data": DATA + ",seed=3"}}, "data"),
        ({"request": {"split": "val"}}, "split train, asked for is val"),
        ({"request": {"batch_size": 8}}, "batch size 16, asked for is 8"),
    ],
)
@pytest.mark.parametrize("is_done", [True, False])
def test_other_input_in_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str, is_done: bool
) -> None:
    if is_done:
        extract(make(), ask(), tmp_path / "x")
    else:
        with monkeypatch.context() as patch:
            patch.setattr(Rows, "write", lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                extract(make(), ask(), tmp_path / "x")
    before = {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir()}
    with pytest.raises(UserError, match=said):
        extract(make(**change.get("product", {})), ask(**change.get("request", {})), tmp_path / "x")
    assert {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir()} == before


def test_arrays_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "embedding.npy", np.zeros((2, 2)))
    with pytest.raises(UserError, match="not from extract"):
        extract(make(), ask(), tmp_path)


def test_what_does_not_fit_on_the_disk_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("fixres.io.files.shutil.disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    monkeypatch.setattr("fixres.inference.extract.evaluation_batches", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(UserError, match="1,000 bytes free"):
        extract(make(), ask(), tmp_path / "x")
    assert not list((tmp_path / "x").glob("*.part"))


def test_a_disk_that_fills_up_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(make(), ask(), tmp_path / "whole")
    pwrite, calls = os.pwrite, []

    def full(descriptor: int, data: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 10:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr("fixres.io.array_store.os.pwrite", full)
        with pytest.raises(UserError, match="No space left"):
            extract(make(), ask(), tmp_path / "x")
    found = extract(make(), ask(), tmp_path / "x")
    assert found.num_resumed == 3 * 16
    assert content(tmp_path / "x") == content(tmp_path / "whole")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    from fixres.io.files import reserved

    with reserved(tmp_path / "x"), pytest.raises(UserError, match="another process"):
        extract(make(), ask(), tmp_path / "x")


@pytest.mark.system
def test_ten_kills_at_any_moment(photos: Path, tmp_path: Path) -> None:
    for i in range(200):
        pixels = np.random.default_rng(i).integers(0, 255, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "train" / ("red", "blue")[i % 2] / f"more-{i}.jpg")
    torch.save(make(num_classes=2).model.state_dict(), tmp_path / "w.pth")
    command = [sys.executable, "-m", "fixres", "extract", "w.pth", "--model", "test_resnet", "--data", str(photos)]
    command += ["--split", "train", "--batch-size", "4", "--workers", "1", "--out"]
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True)
    generator = np.random.default_rng(0)
    kills = 0
    while kills < 10:
        child = subprocess.Popen([*command, "x"], cwd=tmp_path, start_new_session=True)
        while child.poll() is None and not (tmp_path / "x" / "batches.part").exists():
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.6))
        if child.poll() is not None:
            break
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
    subprocess.run([*command, "x"], cwd=tmp_path, check=True)
    assert kills > 0
    assert content(tmp_path / "x") == content(tmp_path / "whole")
    assert json.loads((tmp_path / "x" / "extract.json").read_text())["num_images"] == 224
