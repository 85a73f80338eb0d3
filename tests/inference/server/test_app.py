from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.errors import UserError, fixres_version
from fixres.inference.export.export import ExportRequest, export
from fixres.inference.predict import Predictor
from fixres.inference.server.app import make_app
from fixres.inference.server.batcher import Batcher
from fixres.inference.server.network import open_network
from fixres.inference.server.prometheus import FOLDER
from fixres.inference.server.settings import Limits, Settings
from fixres.runtime.device import Runtime
from tests.support.serving import encoded, make_run, message, picture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("serve") / "run")


LIMITS = Limits(body_bytes=1 << 20, pixels=1_000_000, files=8, waiting=16, seconds=5)


def client_of(run: Path, token: str = "", **changes: Any) -> TestClient:
    settings = Settings(str(run), threads=1, **{"limits": LIMITS, **changes})
    return TestClient(make_app(open_network(settings), settings, token), base_url="http://127.0.0.1:8000")


@pytest.fixture(scope="module")
def client(run: Path) -> Iterator[TestClient]:
    with client_of(run) as opened:
        yield opened


def expected(run: Path, image: Image.Image, size: int | None = None, weights: str = "fixed") -> dict[str, float]:
    product = load(run, weights)
    product = product if size is None else product.at(size)
    (found,) = Predictor(product, Runtime(RuntimeSettings(device="cpu", threads=1)))([image])
    return dict(found.top)


def named(answer: dict[str, Any]) -> dict[str, float]:
    return {entry["name"]: entry["probability"] for entry in answer["top"]}


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


def png_header(width: int, height: int) -> bytes:
    chunk = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    body = zlib.compress(b"\0" * 1000)
    idat = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + chunk + crc + idat


BAD = {
    "not an image": (b"hello, this is text", {}, (415, "not_a_picture")),
    "truncated": (encoded(picture(1, (300, 300)))[:900], {}, (422, "bad_picture")),
    "nothing": (b"", {}, (400, "empty_file")),
    "a PNG of 50,000 x 50,000": (png_header(50_000, 50_000), {}, (413, "too_many_pixels")),
    "a PNG of 1,001 x 1,000": (png_header(1001, 1000), {}, (413, "too_many_pixels")),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", {}, (415, "not_a_picture")),
    "size 7": (encoded(picture()), {"size": "7"}, (422, "bad_size")),
    "size 100,000": (encoded(picture()), {"size": "100000"}, (422, "bad_size")),
    "size abc": (encoded(picture()), {"size": "abc"}, (422, "bad_parameter")),
    "size -3": (encoded(picture()), {"size": "-3"}, (422, "bad_parameter")),
    "top_k 0": (encoded(picture()), {"top_k": "0"}, (422, "bad_parameter")),
    "other weights": (encoded(picture()), {"weights": "../x"}, (422, "bad_parameter")),
    "explain": (encoded(picture()), {"explain": "maybe"}, (422, "bad_parameter")),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_has_its_answer(client: TestClient, what: str) -> None:
    data, query, wanted = BAD[what]
    assert message(client.post("/v1/predict", content=data, params=query)) == wanted
    if what.startswith(("size", "top_k", "other")):
        form = client.post("/v1/predict", files={"file": ("a.jpg", data)}, data=query)
        assert message(form) == wanted


def test_a_size_that_is_refused_says_which_are_not(client: TestClient) -> None:
    text = client.post("/v1/predict", content=encoded(picture()), params={"size": 7}).json()["error"]["message"]
    assert text == "size 7: out of range; this server answers at 32 to 448 px where the network takes it"


def test_a_picture_that_is_also_something_else_is_the_picture(client: TestClient, run: Path) -> None:
    data = encoded(picture(), "PNG") + b"<script>alert(1)</script>PK\x03\x04" + b"\0" * 50
    answer = client.post("/v1/predict", content=data)
    assert named(answer.json()) == pytest.approx(expected(run, picture()), abs=1e-6)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_wrong_content_types_and_forms_are_refused(client: TestClient) -> None:
    data = encoded(picture())
    for kind in ("application/json", "text/html", "image"):
        assert message(client.post("/v1/predict", content=data, headers={"content-type": kind})) == (
            415,
            "bad_content_type",
        )
    headers = {"content-type": "multipart/form-data"}
    assert message(client.post("/v1/predict", content=data, headers=headers))[0] == 400
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\n", b"--x--", b"--x\r\nContent-Disposition: form-data\r\n\r\n--x--", data):
        assert message(client.post("/v1/predict", content=body, headers=headers))[0] == 400
    assert message(client.post("/v1/predict", data={"size": "48"}, files={})) == (415, "bad_content_type")


def test_too_much_is_refused(client: TestClient) -> None:
    assert message(client.post("/v1/predict", content=b"\xff" * (LIMITS.body_bytes + 1))) == (413, "too_large")
    pieces = (b"\xff" * 100_000 for _ in range(20))
    assert message(client.post("/v1/predict", content=pieces)) == (413, "too_large")
    data = encoded(picture())
    two = [("file", ("a.jpg", data)), ("file", ("b.jpg", data))]
    assert message(client.post("/v1/predict", files=two)) == (413, "too_many_files")
    thousand = [("files", (f"{i}.jpg", b"x")) for i in range(1000)]
    assert message(client.post("/v1/predict/batch", files=thousand)) == (413, "too_many_files")


def test_unknown_places_and_methods_answer_in_the_same_form(client: TestClient) -> None:
    assert message(client.get("/nowhere")) == (404, "not_found")
    answer = client.get("/v1/predict")
    assert message(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert message(client.get("/../../etc/passwd"))[0] == 404


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


def test_counters_of_several_workers_are_summed(tmp_path: Path) -> None:
    # The library asks at its import whether there are several workers.
    code = """
import sys
from fixres.inference.server.prometheus import Meters
mine = Meters(sys.argv[1])
mine.pictures.inc(3)
mine.answered("/v1/predict", 200, 0.7)
mine.set_gauges(2, 0)
print(mine.text())
"""
    environment = {**os.environ, FOLDER: str(tmp_path)}
    for _ in range(2):
        command = [sys.executable, "-c", code, str(tmp_path)]
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "\nfixres_pictures_total 6\n" in text
    assert "\nfixres_waiting 2\n" in text
    assert '\nfixres_requests_total{endpoint="/v1/predict",status="200"} 2\n' in text
    assert '\nfixres_answer_seconds_bucket{le="0.5"} 0\nfixres_answer_seconds_bucket{le="1"} 2\n' in text
    assert f'\nfixres_info{{version="{fixres_version()}"}} 1\n' in text
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1


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


def test_a_full_server_says_when_to_come_back(run: Path) -> None:
    with client_of(run, limits=Limits(waiting=4, files=4)) as small:
        service_files = [("files", (f"{i}.png", encoded(picture(i), "PNG"))) for i in range(4)]
        assert small.post("/v1/predict/batch", files=service_files).status_code == 200
    with client_of(run, limits=Limits(waiting=3, files=4)) as smaller:
        answer = smaller.post("/v1/predict/batch", files=service_files)
        assert message(answer) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert smaller.post("/v1/predict/batch", files=service_files[:3]).status_code == 200
    with client_of(run, limits=Limits(held_bytes=1000)) as tight:
        assert message(tight.post("/v1/predict", content=encoded(picture(2, (300, 300))))) == (503, "busy")
        assert tight.post("/v1/predict", content=encoded(picture(2, (8, 8)))).status_code == 200


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


def test_batches_have_one_key_and_no_more_than_the_limit() -> None:
    seen: list[tuple[int, int]] = []

    def compute(key: int, images: torch.Tensor) -> np.ndarray:
        seen.append((key, len(images)))
        return images.double().mean((1, 2, 3)).numpy()[:, None]

    async def scenario() -> list[float]:
        batcher: Batcher[int] = Batcher(compute, 4, 0.05, lambda: True, lambda *_: None)
        images = [(i % 2, torch.full((3, 2, 2), i, dtype=torch.uint8)) for i in range(20)]
        pending = [asyncio.create_task(batcher(key, image)) for key, image in images]
        given_up = pending[4]
        await asyncio.sleep(0)
        given_up.cancel()
        batcher.start()
        rows = await asyncio.gather(*pending, return_exceptions=True)
        await batcher.stop()
        return [float(row[0]) if isinstance(row, np.ndarray) else -1.0 for row in rows]

    answers = asyncio.run(scenario())
    assert answers == [float(i) if i != 4 else -1.0 for i in range(20)]
    assert sum(num for _, num in seen) == 19
    assert max(num for _, num in seen) == 4
    assert len(seen) == 6


def test_a_network_that_fails_fails_its_own_pictures_only() -> None:
    def compute(key: str, images: torch.Tensor) -> np.ndarray:
        if key == "bad":
            raise RuntimeError("out of memory")
        return np.zeros((len(images), 1))

    async def scenario() -> list[Any]:
        batcher: Batcher[str] = Batcher(compute, 4, 0.0, lambda: False, lambda *_: None)
        batcher.start()
        image = torch.zeros(3, 2, 2, dtype=torch.uint8)
        found = await asyncio.gather(*(batcher(key, image) for key in ("bad", "good", "good")), return_exceptions=True)
        alive = batcher.is_alive
        await batcher.stop()
        return [*found, alive]

    bad, good, other, alive = asyncio.run(scenario())
    assert isinstance(bad, RuntimeError)
    assert float(good[0]) == float(other[0]) == 0
    assert alive


def test_a_bug_is_a_500_without_its_traceback(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(str(run), threads=1, limits=LIMITS)
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


@pytest.mark.parametrize("backend", ["openvino", "exported"])
def test_other_backends_and_files_give_the_same_answers(run: Path, tmp_path: Path, backend: str) -> None:
    source, changes = run, {"backend": backend}
    if backend == "exported":
        source, changes = export(load(run), ExportRequest(tmp_path / "net.onnx", softmax=True, normalise=True)).path, {}
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
        open_network(Settings(str(run), threads=1, expected_sha256="0" * 64))


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings("x", sizes=(96, 128), limits=Limits(size=200, seconds=1.5))
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere"],
        ["RUN", "--port", "99999"],
        ["RUN", "--backend", "tensorrt"],
        ["RUN", "--token-file", "nowhere"],
        ["RUN", "--host", "203.0.113.7", "--port", "1"],
        ["RUN", "--sizes", "0"],
    ],
)
def test_mistakes_on_the_command_line_exit_with_2(
    run: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(str(run) if word == "RUN" else word for word in words)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_taken_port_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(run), "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0" in capsys.readouterr().err
