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
    for name in ("localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.2:8000", "[::1]:8000", "[::1]", "localhost."):
        assert client.get("/healthz", headers={"host": name}).status_code == 200
    for name in ("[::1", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        assert message(client.get("/healthz", headers={"host": name})) == (421, "wrong_host")


@pytest.mark.parametrize(
    ("host", "allowed", "asked", "status"),
    [
        ("127.0.0.2", (), "rebound.example", 421),
        ("127.0.0.1", ("shop.example",), "shop.example", 200),
        ("127.0.0.1", ("Shop.example",), "SHOP.example:443", 200),
        ("127.0.0.1", ("shop.example",), "other.example", 421),
        ("127.0.0.1", ("shop.example",), "10.1.2.3", 421),
        ("0.0.0.0", (), "anything.example", 200),
        ("0.0.0.0", ("shop.example",), "other.example", 421),
        ("0.0.0.0", ("shop.example",), "10.1.2.3:8000", 200),
    ],
)
def test_a_proxy_may_keep_the_host_name_it_was_asked_by(
    run: Path, host: str, allowed: tuple[str, ...], asked: str, status: int
) -> None:
    with client_of(run, host=host, allow_host=allowed) as opened:
        assert opened.get("/healthz", headers={"host": asked}).status_code == status


@pytest.mark.parametrize(
    ("headers", "allowed", "status"),
    [
        ({}, (), 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://shop.example"}, (), 200),
        ({"sec-fetch-site": "none"}, (), 200),
        ({"sec-fetch-site": "cross-site"}, (), 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, (), 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://Evil.example"}, ("https://evil.example",), 200),
        ({"sec-fetch-site": "cross-site", "origin": "http://evil.example"}, ("https://evil.example",), 403),
        ({"origin": "https://evil.example"}, (), 403),
        ({"origin": "null"}, (), 403),
        ({"origin": "http://[evil"}, (), 403),
        ({"origin": "evil"}, (), 403),
        ({"origin": "http://127.0.0.1:3000"}, (), 200),
        ({"origin": "https://evil.example"}, ("https://evil.example",), 200),
    ],
)
def test_pages_of_other_sites_may_not_send_pictures(
    run: Path, headers: dict[str, str], allowed: tuple[str, ...], status: int
) -> None:
    with client_of(run, allow_origin=allowed) as opened:
        answer = opened.post("/v1/predict", content=encoded(picture()), headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert message(answer) == (403, "cross_site")
        assert opened.get("/healthz", headers=headers).status_code == 200


def test_an_allowed_site_may_read_the_answers_and_send_its_token(run: Path) -> None:
    site = "https://shop.example"
    with client_of(run, token="secret", allow_origin=(site,)) as opened:
        asked = {"origin": site, "access-control-request-method": "POST"}
        before = opened.options("/v1/predict", headers={**asked, "access-control-request-headers": "authorization"})
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == site
        refused = opened.post("/v1/predict", content=b"", headers={"origin": site})
        assert message(refused) == (401, "no_token")
        assert refused.headers["access-control-allow-origin"] == site
        other = opened.options("/v1/predict", headers={**asked, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_token_is_asked_for(run: Path) -> None:
    with client_of(run, token="secret") as guarded:
        data = encoded(picture())
        assert guarded.get("/healthz").status_code == 200
        assert guarded.get("/").status_code == 200
        for value in ("", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "Bearer \xe9"):
            answer = guarded.post("/v1/predict", content=data, headers={"authorization": value.encode("latin-1")})
            assert message(answer) == (401, "no_token")
        for path in ("/metrics", "/openapi.json", "/v1/model"):
            assert message(guarded.get(path)) == (401, "no_token")
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
