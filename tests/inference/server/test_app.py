"""The endpoints answer what `predict` answers, alone, in batches, side by side and all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import fixres
from fixres.checkpoints.resolve import load
from fixres.errors import UserError
from fixres.inference.server.service import Service
from tests.support.serving import client_of, encoded, expected, message, named, picture


@pytest.mark.parametrize("kind", ["raw", "raw without type", "form"])
@pytest.mark.parametrize("size", [None, 32, 64])
def test_answers_are_those_of_predict(client: TestClient, run: Path, kind: str, size: int | None) -> None:
    data = encoded(picture(), "PNG")
    query = {} if size is None else {"size": size}
    if kind == "form":
        answer = client.post("/v1/predict", files={"file": ("a.png", data)}, data={k: str(v) for k, v in query.items()})
    else:
        headers = {"content-type": "image/png"} if kind == "raw" else {}
        answer = client.post("/v1/predict", content=data, params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == (size or 48)
    assert named(answer.json()) == pytest.approx(expected(run, picture(), size), abs=1e-6)


def test_the_weights_from_before_the_fix_answer_too(client: TestClient, run: Path) -> None:
    data = encoded(picture(), "PNG")
    answer = client.post("/v1/predict", content=data, params={"weights": "before_fix", "size": 32, "top_k": 1}).json()
    wanted = expected(run, picture(), 32, "before_fix")
    assert named(answer) == pytest.approx(dict([max(wanted.items(), key=lambda kv: kv[1])]), abs=1e-6)


def test_a_batch_keeps_its_order_and_names_what_it_cannot_read(client: TestClient, run: Path) -> None:
    files = [("files", (f"{i}.png", encoded(picture(i), "PNG"))) for i in range(3)]
    files.insert(1, ("files", ("../../etc/bad.jpg", b"no picture")))
    answer = client.post("/v1/predict/batch", files=files).json()
    assert [r["file"] for r in answer["results"]] == ["0.png", "bad.jpg", "1.png", "2.png"]
    assert answer["results"][1]["error"]["code"] == "not_a_picture"
    for i, place in ((0, 0), (1, 2), (2, 3)):
        assert named(answer["results"][place]) == pytest.approx(expected(run, picture(i)), abs=1e-6)


def test_the_comparison_has_the_three_rows_of_the_page(client: TestClient, run: Path) -> None:
    answer = client.post("/v1/compare", content=encoded(picture(), "PNG")).json()
    rows = {row["label"]: row for row in answer["rows"]}
    for label, size, weights in (
        ("train size", 32, "before_fix"),
        ("test size, not fixed", 48, "before_fix"),
        ("test size, fixed", 48, "fixed"),
    ):
        assert named(rows[label]) == pytest.approx(expected(run, picture(), size, weights), abs=1e-6)
        assert rows[label]["view"].startswith("data:image/jpeg;base64,")
        assert rows[label]["milliseconds"] > 0
    assert "note" not in answer or not answer["note"]


def test_explanations_are_asked_for_and_leave_the_answers_alone(client: TestClient, run: Path) -> None:
    data = encoded(picture(), "PNG")
    answer = client.post("/v1/predict", content=data, params={"explain": True}).json()
    assert answer["explanation"].startswith("data:image/jpeg;base64,")
    assert named(answer) == pytest.approx(expected(run, picture()), abs=1e-6)
    rows = client.post("/v1/compare", content=data, params={"explain": True}).json()["rows"]
    assert len({row["explanation"] for row in rows}) == 3
    # Where nothing speaks for the class there is no heat.
    assert any(row["explanation"] != row["view"] for row in rows)
    assert "explanation" not in client.post("/v1/predict", content=data).json()


def test_unknown_places_and_methods_answer_in_the_same_form(client: TestClient) -> None:
    assert message(client.get("/nowhere")) == (404, "not_found")
    answer = client.get("/v1/predict")
    assert message(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert message(client.get("/../../etc/passwd"))[0] == 404


def test_model_health_and_metrics(client: TestClient, run: Path) -> None:
    told = client.get("/v1/model").json()
    product = load(run)
    assert (told["size"], told["train_size"], told["classes"]) == (48, 32, list(product.classes))
    assert told["weights"] == ["fixed", "before_fix"]
    assert len(told["checkpoint_sha256"]) == 64
    assert str(run) not in json.dumps(told)
    assert client.get("/readyz").json() == {"status": "ready"}

    def counter(name: str) -> float:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(lines[0].split()[-1])

    asked = 'fixres_requests_total{endpoint="/v1/predict",status="200"}'
    before = counter(asked), counter("fixres_pictures_total"), counter("fixres_answer_seconds_count")
    client.post("/v1/predict", content=encoded(picture()))
    after = counter(asked), counter("fixres_pictures_total"), counter("fixres_answer_seconds_count")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]
    assert counter('fixres_answer_seconds_bucket{le="+Inf"}') == after[2]
    assert counter("fixres_resident_bytes") > 50e6


def test_openapi_describes_bodies_and_errors(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert sorted(found["paths"]) == [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/compare",
        "/v1/model",
        "/v1/predict",
        "/v1/predict/batch",
    ]
    predict = found["paths"]["/v1/predict"]["post"]
    assert {"multipart/form-data", "image/jpeg", "application/octet-stream"} <= set(predict["requestBody"]["content"])
    assert {"200", "400", "413", "415", "422", "503"} <= set(predict["responses"])
    assert predict["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")


@pytest.mark.parametrize("seed", range(3))
def test_pictures_of_all_sizes_and_weights_at_once_get_their_own_answers(
    client: TestClient, run: Path, seed: int
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    asked = [(i, (32, 48, 64)[i % 3], ("fixed", "before_fix")[i % 2]) for i in range(seed * 12, seed * 12 + 12)]

    def ask(one: tuple[int, int, str]) -> dict[str, float]:
        seed, size, weights = one
        answer = client.post(
            "/v1/predict", content=encoded(picture(seed), "PNG"), params={"size": size, "weights": weights}
        )
        return named(answer.json())

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, asked))
    for (i, size, weights), answer in zip(asked, answers, strict=True):
        assert answer == pytest.approx(expected(run, picture(i), size, weights), abs=1e-4)


def test_promises_are_those_of_predict(client: TestClient, run: Path) -> None:
    data = encoded(picture(), "PNG")
    (wanted,) = fixres.predict(run, picture(), coverage=0.9)
    query = {"coverage": 0.9, "top_k": 1}
    answer = client.post("/v1/predict", content=data, params=query).json()
    assert answer["set"] == list(wanted.inside or ())
    assert "unsure" not in answer
    files = [("files", ("a.png", data)), ("files", ("b.jpg", b"no picture"))]
    batch = client.post("/v1/predict/batch", files=files, data={"coverage": "0.9"}).json()["results"]
    assert batch[0]["set"] == answer["set"]
    assert "set" not in batch[1]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"coverage": 0.93}, "a product keeps 0.8, 0.9, 0.95, 0.99"),
        ({"coverage": 0.9, "size": 32}, "promises hold at 48 px with the fixed weights"),
        ({"coverage": 0.9, "weights": "before_fix"}, "promises hold at 48 px"),
        ({"abstain": 0.01}, "cannot promise at most 1 % of wrong answers"),
    ],
)
def test_what_is_not_promised_is_not_answered(client: TestClient, query: dict[str, object], why: str) -> None:
    answer = client.post("/v1/predict", content=encoded(picture(), "PNG"), params=query)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "not_promised"
    assert why in answer.json()["error"]["message"]


def test_a_busy_server_answers_at_a_smaller_size_and_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "PNG")
    with client_of(run, degrade_to=32) as client:
        quiet = client.post("/v1/predict", content=data).json()
        assert quiet["size"] == 48
        assert "degraded" not in quiet
        monkeypatch.setattr(Service, "is_busy", property(lambda _: True))
        busy = client.post("/v1/predict", content=data).json()
        assert (busy["size"], busy["degraded"]) == (32, True)
        assert named(busy) == pytest.approx(expected(run, picture(), 32), abs=1e-6)
        batch = client.post("/v1/predict/batch", files=[("files", ("a.png", data))]).json()
        assert (batch["size"], batch["degraded"]) == (32, True)
        # What is asked for is answered.
        for query in ({"size": 48}, {"coverage": 0.9}, {"explain": True}, {"weights": "before_fix"}):
            answer = client.post("/v1/predict", content=data, params=query).json()
            assert answer["size"] == 48
            assert "degraded" not in answer
        assert "fixres_degraded_total 2" in client.get("/metrics").text


def test_a_server_without_a_smaller_size_never_degrades(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "is_busy", property(lambda _: True))
    assert client.post("/v1/predict", content=encoded(picture(), "PNG")).json()["size"] == 48


@pytest.mark.parametrize(("size", "why"), [(48, "at a smaller size than 48"), (8, "out of range")])
def test_a_size_that_is_no_smaller_one_is_refused_at_the_start(run: Path, size: int, why: str) -> None:
    with pytest.raises(UserError, match=why), client_of(run, degrade_to=size):
        pass
