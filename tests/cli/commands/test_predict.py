"""`fixres predict` as it is typed: every kind of list, every format, interruptions, a constant amount of memory."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.cli.main import main
from fixres.data.unlabelled import Pictures, picture_batches
from fixres.errors import UserError
from fixres.inference.predict import Predictor
from fixres.io.resumable_table import Unfinished
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from tests.support.command_line import Run


@pytest.fixture
def predict(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a small network in a folder with 23 pictures; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(build_model("test_resnet", 7, init="torch").state_dict(), "w.pth")
    for i in range(23):
        folder = tmp_path / "photos" / ("a", "b")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i:02}.png")

    def run(*words: object, lines: str = "") -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        code = main(["predict", "w.pth", "--model", "test_resnet", "--size", "32", *map(str, words)])
        return code, *capfd.readouterr()

    return run


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_folders_patterns_lists_tables_and_stdin_name_the_same_pictures(predict: Run, tmp_path: Path) -> None:
    code, out, _ = predict("photos", "--format", "jsonl")
    expected = rows_of(out)
    assert (code, len(expected)) == (0, 23)
    assert [row["path"] for row in expected] == sorted(row["path"] for row in expected)
    names = [row["path"] for row in expected]
    Path("list.txt").write_text("\n".join(names) + "\n\n")
    (tmp_path / "photos" / "table.csv").write_text("label,path\n" + "".join(f"x,{n[7:]}\n" for n in names))
    for words in (["photos/a", "photos/b/*"], ["list.txt"], ["-"], ["photos/table.csv"]):
        code, out, err = predict(*words, "--format", "jsonl", lines="\n".join(names))
        assert (code, rows_of(out)) == (0, expected), (words, err)


def test_a_list_may_name_what_is_not_there_and_a_table_must_have_its_column(predict: Run) -> None:
    code, out, err = predict("-", "--format", "csv", "--top-k", "2", lines="nowhere.png\nphotos/a/00.png\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 2
    assert [row["error"] for row in rows] == ["no such file or directory", ""]
    assert rows[0]["name1"] == ""
    assert rows[1]["probability2"]
    assert "warning: nowhere.png: no such file" in err
    Path("t.csv").write_text("file\nphotos/a/00.png\n")
    code, out, err = predict("t.csv")
    assert (code, out) == (2, "")
    assert "no column 'path'" in err


def test_every_format_says_the_same(predict: Run) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    Path("photos/a/bad.png").write_text("x")
    best = [row["top"][0]["probability"] for row in rows_of(predict("photos", "--format", "jsonl")[1]) if row["top"]]
    threshold = float(np.median(best)) + 1e-9
    words = ("photos", "--top-k", "2", "--threshold", threshold)
    expected = rows_of(predict(*words, "--format", "jsonl")[1])
    assert {row.get("unsure") for row in expected} == {True, False, None}
    code, out, err = predict(*words, "--format", "json")
    assert (code, json.loads(out)) == (2, expected)
    assert err.count("bad.png") == 1
    rows = list(csv.DictReader(io.StringIO(predict(*words, "--format", "csv")[1])))
    assert list(rows[0]) == ["path", "size", "name1", "probability1", "name2", "probability2", "unsure", "error"]
    assert predict(*words, "--format", "parquet", "--out", "p.parquet")[0] == 2
    table = parquet.read_table("p.parquet").to_pylist()
    for row, cells, entry in zip(expected, rows, table, strict=True):
        assert row["path"] == cells["path"] == entry["path"]
        assert [t["name"] for t in row["top"]] == entry["names"] == [n for n in (cells["name1"], cells["name2"]) if n]
        assert [t["probability"] for t in row["top"]] == entry["probabilities"]
        assert row.get("unsure") == entry["unsure"]
        assert cells["unsure"] == {True: "true", False: "false", None: ""}[entry["unsure"]]
        assert (row.get("error"), cells["error"] or None) == (entry["error"], entry["error"])
        if row["top"]:
            assert entry["unsure"] == (entry["probabilities"][0] < threshold)
    assert predict("photos", "--format", "parquet")[0] == 2


def test_one_picture_has_a_table_of_names_and_percent(predict: Run) -> None:
    code, out, _ = predict("photos/a/00.png")
    name, *lines = out.splitlines()
    assert (code, name, len(lines)) == (0, "photos/a/00.png", 5)
    shares = [float(line.rpartition("(")[2].removesuffix(" %)")) for line in lines]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.01


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_other_backends_give_the_same_probabilities(predict: Run, backend: str) -> None:
    pytest.importorskip(backend)
    expected = rows_of(predict("photos", "--format", "jsonl")[1])
    code, out, _ = predict("photos", "--format", "jsonl", "--device", "cpu", "--backend", backend)
    assert code == 0
    for row, other in zip(expected, rows_of(out), strict=True):
        assert row["path"] == other["path"]
        assert [t["probability"] for t in row["top"]] == pytest.approx(
            [t["probability"] for t in other["top"]], rel=1e-3
        )
    assert predict("photos", "--backend", backend, "--cascade")[0] == 2


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("style", ["jsonl", "csv"])
@pytest.mark.parametrize("cut", [0, 3, 300, 10_000])
def test_an_interrupted_file_is_gone_on_with(
    predict: Run, monkeypatch: pytest.MonkeyPatch, style: str, cut: int
) -> None:
    Path("photos/a/01.png").write_text("no picture")
    words = ("photos", "--format", style, "--batch-size", "4", "--out")
    assert predict(*words, "whole")[0] == 2
    assert not Path("whole.part").exists()
    seen: list[int] = []
    forward = Predictor._predict

    def stop(self: Predictor, batch: Any, shape: int) -> Any:
        if len(seen) == 3:
            raise Killed
        seen.append(len(batch.names))
        return forward(self, batch, shape)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_predict", stop)
        with pytest.raises(Killed):
            predict(*words, "out")
    part = Path("out.part")
    size = part.stat().st_size
    # As a kill leaves it: the last row may be cut anywhere.
    os.truncate(part, max(0, size - cut))
    code, _, err = predict(*words, "out")
    assert code == 2
    assert "--resume goes on with it" in err
    assert part.stat().st_size == max(0, size - cut)
    code, _, err = predict(*words, "out", "--resume")
    assert code == 2
    assert Path("out").read_bytes() == Path("whole").read_bytes()
    assert not list(Path().glob("out.part*"))
    assert {0: "after 12 ", 3: "after 8 "}.get(cut, "goes on after") in err
    assert "is complete" in predict(*words, "out", "--resume")[2]


def test_names_are_marked_for_spreadsheets_only_where_that_is_asked_for(
    predict: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("photos").rename("=1+1")
    code, out, err = predict("=1+1", "--format", "csv")
    assert code == 0
    assert all(row["path"].startswith("=1+1/") for row in csv.DictReader(io.StringIO(out)))
    assert err.count("--spreadsheet") == 1
    words = ("=1+1", "--format", "csv", "--spreadsheet", "--batch-size", "4")
    code, marked, err = predict(*words)
    assert all(row["path"].startswith("'=1+1/") for row in csv.DictReader(io.StringIO(marked)))
    assert "--spreadsheet" not in err

    def stop(self: Unfinished) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", stop)
        with pytest.raises(Killed):
            predict(*words, "--out", "out")
    code, _, err = predict("=1+1", "--format", "csv", "--batch-size", "4", "--out", "out", "--resume")
    assert code == 2
    assert "was made with format csv --spreadsheet, asked for is csv" in err
    assert predict(*words, "--out", "out", "--resume")[0] == 0
    assert Path("out").read_text() == marked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos/b"], "row 1 of out.part is of photos/a/00.png, the list has photos/b/01.png"),
        (["photos/a/00.png"], "the list is shorter"),
        (["photos", "--top-k", "2"], "was made with top k 5, asked for is 2"),
        (["photos", "--size", "48"], "was made with size 32"),
        (["photos", "--batch-size", "5"], "was made with batch size 4"),
    ],
)
def test_other_rows_are_not_gone_on_with(
    predict: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    def stop(self: Unfinished) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", stop)
        with pytest.raises(Killed):
            predict("photos", "--format", "jsonl", "--batch-size", "4", "--out", "out")
    rows = Path("out.part").read_bytes()
    words = ["--format", "jsonl", "--batch-size", "4", *words]
    code, _, err = predict(*words, "--out", "out", "--resume")
    assert code == 2
    assert said in err
    assert Path("out.part").read_bytes() == rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--out", "photos"], "photos is a folder"),
        (["photos", "--out", "w.pth/out.csv", "--format", "csv"], "cannot write w.pth/out.csv"),
        (["photos", "--resume"], "add --format jsonl"),
        (["photos", "--resume", "--out", "x.json", "--format", "json"], "add --format jsonl"),
        (["photos", "--spreadsheet", "--format", "jsonl"], "--spreadsheet is about CSV, the format is jsonl"),
        (["photos", "--explain", "w.pth"], "w.pth is a file"),
        (["photos", "--threshold", "1.5"], "threshold"),
        ([], "PATHS is missing"),
    ],
)
def test_what_cannot_work_is_refused_before_the_network_is_loaded(
    predict: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr("fixres.cli.commands.predict.open_checkpoint", lambda *_: pytest.fail("loaded"))
    code, out, err = predict(*words)
    assert (code, out) == (2, "")
    assert said in err


def test_a_missing_picture_is_named(predict: Run) -> None:
    code, out, err = predict("nowhere")
    assert (code, out) == (2, "")
    assert "no such file or folder: nowhere" in err


@pytest.mark.parametrize("workers", [0, 1])
def test_notes_say_what_is_passed_over_and_what_was_left_out(predict: Run, workers: int) -> None:
    Path("photos/a/raw.NEF").write_text("x")
    Path("photos/c").symlink_to("a")
    Path("more").mkdir()
    Image.new("RGB", (40, 40)).save("more/long.png", icc_profile=bytes(2 << 20))
    Path("more/linked").symlink_to("../photos/b")
    code, out, err = predict("photos", "more", "--format", "jsonl", "--workers", workers)
    assert (code, len(rows_of(out))) == (0, 23 + 1 + 11)
    assert "note: 1 file ignored, a camera's raw format, convert to JPEG first" in err
    assert "note: more/long.png: decoded without its metadata, which cannot be read: ICC profile" in err


def test_workers_change_nothing_and_end_early(predict: Run) -> None:
    pictures = list(Pictures(["photos"]))
    read = [list(picture_batches(pictures, Preprocess(32), 5, workers)) for workers in (0, 2)]
    for one, two in zip(*read, strict=True):
        assert (one.names, one.places) == (two.names, two.places)
        assert torch.equal(one.images, two.images)
    batches = picture_batches(iter(pictures), Preprocess(32), 2, 2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def test_the_walk_is_in_the_order_of_sorted_paths(tmp_path: Path) -> None:
    names = ["a.png", "a/1.png", "a-b/2.png", "ab/c/3.png", "ab.png", "b/x.JPG", "b/y/z.webp", "b.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [str(Path(p).relative_to(tmp_path)) for p in Pictures([str(tmp_path)])]
    assert found == sorted(name for name in names if not name.endswith("txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in"):
        Pictures([str(tmp_path / "empty")])


def peak_kib(folder: Path, count: int) -> int:
    code = (
        "import resource, sys\n"
        "from fixres.cli.main import main\n"
        "words = 'predict w.pth --model test_resnet --size 32 --quiet'.split()\n"
        "assert main([*words, *sys.argv[1:]]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    names = "".join(f"photos/a/{2 * (i % 12):02}.png\n" for i in range(count))
    (folder / "names.txt").write_text(names)
    words = ["names.txt", "--format", "jsonl", "--out", f"{count}.jsonl", "--workers", "0"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=True)
    assert len((folder / f"{count}.jsonl").read_text().splitlines()) == count
    return int(done.stdout)


@pytest.mark.system
def test_memory_does_not_grow_with_the_number_of_pictures(predict: Run, tmp_path: Path) -> None:
    few, many = peak_kib(tmp_path, 200), peak_kib(tmp_path, 6000)
    assert many - few < 8 * 1024


def test_predict_leaves_an_overlay_for_every_picture_it_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum")
    monkeypatch.chdir(tmp_path)
    (photos / "val" / "red" / "01.jpg").write_text("no picture")
    torch.manual_seed(0)
    torch.save(build_model("test_resnet", 7, init="torch").state_dict(), "w.pth")
    words = ["predict", "w.pth", "--model", "test_resnet", "--size", "96", str(photos / "val"), "--explain", "seen"]
    assert main([*words, "--format", "jsonl"]) == 2
    names = sorted(path.name for path in Path("seen").iterdir())
    assert len(names) == 9
    assert names[:2] == ["000001-00.png", "000002-01.png"]
    with Image.open(Path("seen") / names[0]) as page:
        assert page.width > 2 * 256


def test_a_name_as_long_as_names_may_be_has_its_overlay(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    monkeypatch.chdir(tmp_path)
    long = photos / "val" / "red" / ("z" * 251 + ".jpg")
    (photos / "val" / "red" / "01.jpg").rename(long)
    torch.save(build_model("test_resnet", 7, init="torch").state_dict(), "w.pth")
    assert main(["predict", "w.pth", "--model", "test_resnet", "--size", "96", str(long), "--explain", "seen"]) == 0
    (drawn,) = Path("seen").iterdir()
    assert drawn.name.startswith("000001-zzz")
    assert drawn.suffix == ".png"


@pytest.mark.parametrize("style", ["table", "json", "jsonl", "csv"])
def test_a_pipe_is_written_to_and_stays_one(predict: Run, style: str) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    code, _, _ = predict("photos/a/00.png", "--format", style, "--out", "pipe")
    reader.join(30)
    assert code == 0
    assert "00.png" in read[0]
    assert Path("pipe").is_fifo()
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "pipe", "w.pth"]


def test_a_device_is_not_replaced(predict: Run) -> None:
    code, _, told = predict("photos/a/00.png", "--format", "parquet", "--out", "/dev/null")
    assert code == 2
    assert "/dev/null is no ordinary file" in told
    assert Path("/dev/null").is_char_device()


def test_a_name_with_a_line_end_forges_no_lines(predict: Run) -> None:
    name = "a\n  tench (99.00 %).png"
    Path("photos/a/00.png").rename(Path("photos/a") / name)
    code, out, _ = predict(Path("photos/a") / name)
    assert code == 0
    assert out.splitlines()[0] == "photos/a/a\\n  tench (99.00 %).png"


def test_predict_goes_on_after_a_bad_picture_and_exits_2(fixres: Run, photos: Path, trained_run: Path) -> None:
    folder = photos / "val" / "red"
    (folder / "01.jpg").write_text("no picture")
    code, out, err = fixres("predict", trained_run, folder, "--format", "jsonl", "--top-k", "1")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert len(rows) == 5
    assert [bool(row.get("error")) for row in rows] == [False, True, False, False, False]
    assert "01.jpg" in err
    code, out, _ = fixres("predict", trained_run, f"{folder}/0[23].jpg", "--format", "csv")
    assert code == 0
    assert [row["path"] for row in csv.DictReader(out.splitlines())] == [str(folder / "02.jpg"), str(folder / "03.jpg")]
