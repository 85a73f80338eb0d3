"""Weights and checkpoints: written as equal bytes, read without running what they hold."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch

from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors, read_weights, write_weights
from tests.support.hostile_files import MARKER, Evil


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"weight": Evil()}, path)
    raw = tmp_path / "raw.pt"
    raw.write_bytes(pickle.dumps(Evil()))
    for file in (path, raw):
        with pytest.raises(UserError):
            read_checkpoint(file)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 200])
def test_a_truncated_file_is_one_message(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save({"a": torch.zeros(100)}, path)
    else:
        write_weights(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated"):
        read_weights(path)


def test_a_nested_file_is_not_taken_for_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"not a flat dictionary of tensors \(it holds: state_dict, epoch\)"):
        read_weights(tmp_path / "w.pt")


def test_equal_weights_are_equal_bytes_whatever_their_layout(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5)
    write_weights(tmp_path / "a.safetensors", {"w": weight, "b": torch.ones(2)})
    write_weights(tmp_path / "b.safetensors", {"w": weight.to(memory_format=torch.channels_last), "b": torch.ones(2)})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert not changed_tensors(read_weights(tmp_path / "a.safetensors"), {"w": weight, "b": torch.ones(2)})


def test_loading_needs_no_more_than_weights_only(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2), "b": [1, "x", None]}, buffer)
    (tmp_path / "ok.pt").write_bytes(buffer.getvalue())
    assert read_checkpoint(tmp_path / "ok.pt")["b"] == [1, "x", None]
