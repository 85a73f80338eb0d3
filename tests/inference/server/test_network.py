"""Backends, exported files and replaced weights behind the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.errors import UserError
from fixres.inference.export.export import export
from fixres.inference.requests import ExportRequest
from fixres.inference.server.network import open_network
from fixres.inference.server.settings import Settings
from tests.support.serving import client_of, encoded, expected, message, named, picture


@pytest.mark.parametrize("backend", ["openvino", "exported"])
def test_other_backends_and_files_give_the_same_answers(run: Path, tmp_path: Path, backend: str) -> None:
    source, changes = run, {"backend": backend}
    if backend == "exported":
        source, changes = (
            export(load(run), ExportRequest(out=tmp_path / "net.onnx", softmax=True, normalise=True)).path,
            {},
        )
    with client_of(source, **changes) as opened:
        answer = opened.post("/v1/predict", content=encoded(picture(), "PNG"))
        assert named(answer.json()) == pytest.approx(expected(run, picture()), abs=1e-4)
        assert message(opened.post("/v1/predict", content=encoded(picture()), params={"size": 40})) == (422, "bad_size")
        explained = opened.post("/v1/predict", content=encoded(picture()), params={"explain": True})
        assert explained.status_code == (200 if backend == "openvino" else 501)
        rows = opened.post("/v1/compare", content=encoded(picture(), "PNG")).json()["rows"]
        assert [row["size"] for row in rows] == ([32, 48, 48] if backend == "openvino" else [32, 48])


def test_replaced_weights_do_not_start_a_worker(run: Path) -> None:
    with pytest.raises(UserError, match="was replaced while the server runs"):
        open_network(Settings(source=str(run), threads=1, expected_sha256="0" * 64))
