"""The way of a user from a folder of pictures to a report, one command after the other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fixres.runtime.run_folder import read_events
from tests.support.command_line import Run, snapshot


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
