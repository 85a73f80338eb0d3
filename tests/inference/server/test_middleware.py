"""Host names, tokens and bugs stop at the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fixres.inference.server.app import make_app
from fixres.inference.server.network import open_network
from fixres.inference.server.settings import Settings
from tests.support.serving import LIMITS, client_of, encoded, message, picture


def test_a_host_name_that_only_points_here_is_refused(client: TestClient) -> None:
    assert message(client.get("/v1/model", headers={"host": "rebound.example:8000"})) == (421, "wrong_host")
    for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "[::1]"):
        assert client.get("/healthz", headers={"host": name}).status_code == 200


def test_a_token_is_asked_for(run: Path) -> None:
    with client_of(run, token="secret") as guarded:
        data = encoded(picture())
        assert guarded.get("/healthz").status_code == 200
        assert guarded.get("/").status_code == 200
        for value in ("", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "Bearer \xe9"):
            answer = guarded.post("/v1/predict", content=data, headers={"authorization": value.encode("latin-1")})
            assert message(answer) == (401, "no_token")
        assert message(guarded.get("/metrics")) == (401, "no_token")
        good = {"authorization": "Bearer secret"}
        assert guarded.post("/v1/predict", content=data, headers=good).status_code == 200


def test_a_bug_is_a_500_without_its_traceback(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(source=str(run), threads=1, limits=LIMITS)
    network = open_network(settings)

    def broken(*_: object) -> np.ndarray:
        raise ZeroDivisionError("secret detail")

    network.compute["fixed"] = broken
    with TestClient(make_app(network, settings), base_url="http://localhost", raise_server_exceptions=False) as opened:
        answer = opened.post("/v1/predict", content=encoded(picture()))
        assert message(answer) == (500, "internal")
        assert "secret" not in answer.text
        assert opened.get("/readyz").status_code == 200
    assert "ZeroDivisionError" in capsys.readouterr().err
