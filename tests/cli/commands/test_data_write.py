"""`fixres data split`, `pack`, `prepare` and `download`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import Run


def test_split_writes_a_table_that_opens(fixres: Run, photos: Path) -> None:
    code, out, err = fixres("data", "split", photos, "--out", "split.csv", "--val", 0.25, "--test", 0, "--seed", 3)
    assert code == 0, err
    assert "val: 8 pictures of 2 classes" in err
    code, report, _ = fixres("data", "check", out.strip(), "--workers", 0, "--json", "-")
    assert code == 0
    assert json.loads(report)["num_images"] == {"train": 26, "val": 8}
    code, _, err = fixres("data", "split", photos, "--out", "split.csv")
    assert code == 2
    assert "there already" in err
    code, out, err = fixres("data", "split", photos, "--out", "g.csv", "--group", "([0-9]+).jpg", "--quiet")
    assert (code, err) == (0, "")
    assert fixres("data", "split", photos, "--out", "h.csv", "--val", 1)[0] == 2


def test_pack_writes_shards_that_hold_the_same(fixres: Run, photos: Path, tmp_path: Path) -> None:
    code, out, _ = fixres("data", "pack", photos, "--out", "shards", "--images-per-shard", 10)
    assert code == 0
    assert [Path(line).suffix for line in out.splitlines()] == [".tar"] * 4
    code, out, _ = fixres("data", "check", f"wds:{tmp_path / 'shards'}", "--workers", 0, "--json", "-")
    stored = json.loads(out)
    assert code == 0
    assert stored["num_images"] == {"train": 24, "val": 10}
    assert stored["formats"] == {"JPEG": 34}
    assert stored["classes"] == ["blue", "red"]
    assert fixres("data", "pack", photos, "--out", "shards")[0] == 2


def test_a_cut_shard_is_found(fixres: Run, photos: Path, tmp_path: Path) -> None:
    fixres("data", "pack", photos, "--out", "shards", "--images-per-shard", 10)
    shard = sorted((tmp_path / "shards").rglob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    code, _, err = fixres("data", "check", f"wds:{tmp_path / 'shards'}", "--workers", 0)
    assert code == 2
    assert shard.name in err


def test_prepare_and_download_list_the_sets(fixres: Run) -> None:
    for name in ("prepare", "download"):
        code, out, _ = fixres("data", name)
        assert code == 0
        assert "cifar10 " in out
        assert any(line.split()[:2] == ["imagenet", "by"] for line in out.splitlines())


def test_prepare_and_download_refuse_what_they_do_not_know(fixres: Run, tmp_path: Path) -> None:
    code, _, err = fixres("data", "prepare", "cifr10", "--from", tmp_path, "--out", tmp_path / "new")
    assert code == 2
    assert "did you mean 'cifar10'?" in err
    code, _, err = fixres("data", "download", "imagenet", "--out", tmp_path / "new")
    assert code == 2
    assert "account" in err
    assert not (tmp_path / "new").exists()
