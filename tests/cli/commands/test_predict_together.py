"""`fixres predict` on several processes: the file of one process, bit for bit, whatever ends on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.cli import main as command_line
from fixres.cli import prediction_job
from fixres.cli.main import main
from fixres.inference.predict import Predictor
from fixres.models.build import build_model
from fixres.runtime import distributed
from tests.support.several import run_processes

Predict = Callable[..., tuple[list[Any], str]]
NETWORK = ("w.pth", "--model", "test_resnet", "--size", "32", "--device", "cpu", "--batch-size", "4")


@pytest.fixture
def predict(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Run the command on several processes in a folder with 23 pictures; return what each came to, and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_FIRST_WORD_SECONDS", 0.0)
    monkeypatch.setattr(distributed, "_NOTICE_SECONDS", 0.05)
    torch.manual_seed(0)
    torch.save(build_model("test_resnet", 7, init="torch").state_dict(), "w.pth")
    for i in range(23):
        folder = tmp_path / "photos" / ("a", "b")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i:02}.png")

    def run(count: int, *words: object, function: Callable[..., Any] = main) -> tuple[list[Any], str]:
        capfd.readouterr()
        found = run_processes(count, function, ["predict", *NETWORK, *map(str, words)])
        return found, capfd.readouterr().err

    return run


def left_behind() -> list[str]:
    return sorted(path.name for path in Path().glob("*.part*"))


@pytest.mark.parametrize(("style", "count"), [("csv", 2), ("jsonl", 3), ("json", 2), ("parquet", 2)])
def test_several_processes_write_what_one_writes(predict: Predict, style: str, count: int) -> None:
    if style == "parquet":
        pytest.importorskip("pyarrow")
    Path("photos/b/07.png").write_text("no picture")
    names = sorted(map(str, Path("photos").rglob("*.png")))
    Path("table.csv").write_text("id,path\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    words = ("table.csv", "--keep", "id", "--top-k", "2", "--threshold", "0.2")
    one, told_by_one = predict(1, *words, "--out", f"one.{style}")
    several, told = predict(count, *words, "--out", f"several.{style}")
    assert (one, several) == ([2], [2] * count)
    assert Path(f"several.{style}").read_bytes() == Path(f"one.{style}").read_bytes()
    assert left_behind() == []
    assert told == told_by_one
    assert told.count("07.png") == 1


def test_a_list_that_is_shorter_than_the_processes_are_many_is_written_too(predict: Predict) -> None:
    words = ("photos/a/00.png", "photos/a/02.png", "--out")
    assert predict(1, *words, "one.csv")[0] == [0]
    assert predict(3, *words, "several.csv")[0] == [0, 0, 0]
    assert Path("several.csv").read_bytes() == Path("one.csv").read_bytes()


def test_a_cascade_is_divided_too(predict: Predict, fixed_run: Path) -> None:
    shutil.copytree(fixed_run / "model", "model")
    config = json.loads(Path("model/config.json").read_text())
    words = ["photos", "--device", "cpu", "--batch-size", "4", "--out"]
    assert main(["predict", "model#before_fix", "--size", "32", *words, "small.csv"]) == 0
    confidences = [float(row["probability1"]) for row in csv.DictReader(io.StringIO(Path("small.csv").read_text()))]
    config["fixres"]["cascade"] = {"sizes": [32, 48], "threshold": float(np.median(confidences)), "chosen_on": "val"}
    Path("model/config.json").write_text(json.dumps(config))
    assert run_processes(1, main, ["predict", "model", "--cascade", *words, "one.csv"]) == [0]
    assert run_processes(2, main, ["predict", "model", "--cascade", *words, "two.csv"]) == [0, 0]
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()
    assert {row["size"] for row in csv.DictReader(io.StringIO(Path("two.csv").read_text()))} == {"32", "48"}


def killed(words: list[str], rank: str, num_batches: int) -> int:
    """Predict until one process, or every one, is killed before it computes one batch more."""
    original, done = Predictor._predict, 0

    def counted(self: Predictor, batch: Any, shape: int) -> Any:
        nonlocal done
        if done == num_batches and rank in ("every", os.environ["RANK"]):
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return original(self, batch, shape)

    Predictor._predict = counted  # type: ignore[method-assign]
    return main(words)


def killed_when_joined(words: list[str]) -> int:
    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    prediction_job.remove = kill
    return main(words)


@pytest.mark.parametrize(
    ("style", "rank", "num_batches", "cut"),
    [("csv", "every", 2, 0), ("parquet", "every", 1, 3), ("jsonl", "1", 2, 400), ("csv", "0", 0, 0)],
)
def test_what_was_killed_goes_on_to_the_same_file(
    predict: Predict, style: str, rank: str, num_batches: int, cut: int
) -> None:
    if style == "parquet":
        pytest.importorskip("pyarrow")
    Path("photos/b/07.png").write_text("no picture")
    words = ("photos", "--out")
    assert predict(1, *words, f"one.{style}")[0] == [2]
    out = f"two.{style}"
    found, told = predict(2, *words, out, function=lambda words: killed(words, rank, num_batches))
    # Whoever lives on says so; of two that are to be killed the second may hear of the first before.
    assert set(found) == {None, 2} or (rank == "every" and set(found) <= {None, 2}), told
    assert not Path(out).exists()
    # As a kill leaves it: the last row may be cut anywhere.
    part = Path(f"{out}.2-of-2.part")
    os.truncate(part, max(0, part.stat().st_size - cut))
    is_begun = any(path.read_bytes().count(b"\n") >= 4 for path in Path().glob(f"{out}.*.part"))
    found, told = predict(2, *words, out)
    assert found == [2, 2]
    assert f"{out} was begun by 2 processes\n  start 2 with --resume" in told
    found, told = predict(2, *words, out, "--resume")
    assert found == [2, 2]
    assert told.count("goes on after") == is_begun
    assert told.count("07.png") == 1
    assert Path(out).read_bytes() == Path(f"one.{style}").read_bytes()
    assert left_behind() == []
    found, told = predict(2, *words, out, "--resume")
    assert (found, told.count("is complete")) == ([0, 0], 1)


def test_what_was_killed_when_it_was_joined_is_joined_again(predict: Predict) -> None:
    assert predict(1, "photos", "--out", "one.csv")[0] == [0]
    assert predict(2, "photos", "--out", "two.csv", function=killed_when_joined)[0][0] is None
    assert len(left_behind()) == 4
    assert predict(2, "photos", "--out", "two.csv", "--resume")[0] == [0, 0]
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()
    assert left_behind() == []


def test_another_number_of_processes_and_other_settings_do_not_go_on(predict: Predict) -> None:
    words = ("photos", "--out", "out.csv")
    predict(2, *words, function=lambda words: killed(words, "every", 1))
    found, told = predict(1, *words, "--resume")
    assert found == [2]
    assert "out.csv was begun by 2 processes, now there are 1\n  start 2 with --resume" in told
    found, told = predict(2, *words, "--resume", "--top-k", "2")
    assert found == [2, 2]
    assert "was made with top k 5, asked for is 2" in told
    assert len(left_behind()) == 4


def test_what_one_process_began_is_not_gone_on_with_by_two(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    predict(1, "photos", "--out", "out.csv", function=lambda words: killed(words, "every", 1))
    found, told = predict(2, "photos", "--out", "out.csv", "--resume")
    assert found == [2, 2]
    assert "out.csv was begun by 1 process, now there are 2\n  start 1 with --resume" in told


def test_a_picture_that_no_column_can_tell_of_stops_all_with_one_message(predict: Predict) -> None:
    Path("photos/b/01.png").write_text("no picture")
    found, told = predict(2, "photos", "--columns", "path,label", "--out", "out.csv")
    assert found == [2, 2]
    assert "fixres: 1 picture cannot be read, and no column could say so: photos/b/01.png" in told
    assert "add error to --columns; --resume goes on" in told
    assert not Path("out.csv").exists()


def with_one_more(words: list[str]) -> int:
    return main([*words, "photos/a/00.png"] if os.environ["RANK"] == "1" else words)


def test_processes_that_see_other_pictures_write_nothing(predict: Predict) -> None:
    found, told = predict(2, "--out", "out.csv", "photos", function=with_one_more)
    assert found == [2, 2]
    assert "the list of pictures changed while it was read: process 0 found 23, process 1 24" in told
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--format", "csv"], "2 processes write one file together\n  add --out FILE.csv"),
        (["photos", "--format", "csv", "--out", "/dev/null"], "2 processes write one file together"),
        (["-", "--out", "out.csv"], "2 processes share no stdin\n  name a list, FILE.txt"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_the_network_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").touch()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("fixres.cli.commands.predict.open_checkpoint", lambda *_: pytest.fail("loaded"))
    assert main(["predict", *NETWORK, *words]) == 2
    assert said in capsys.readouterr().err
