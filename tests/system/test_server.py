"""A server in a process of its own, under everything clients do to it. Slow: `make test-system`."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.inference.predict import Predictor
from fixres.runtime.device import Runtime
from tests.support.serving import Running, encoded, make_run, message, picture, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("serve") / "run")


def answer_of(client: httpx.Client, data: bytes) -> dict[str, float]:
    answer = client.post("/v1/predict", content=data)
    assert answer.status_code == 200, answer.text
    return {entry["name"]: entry["probability"] for entry in answer.json()["top"]}


def raw(server: Running) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def test_two_hundred_clients_at_once_are_all_answered(run: Path) -> None:
    data = [encoded(picture(i)) for i in range(8)]
    with serving(run, "--max-queue", "64", "--threads", "1") as server:
        with server.client() as client:
            wanted = [answer_of(client, one) for one in data]

        def ask(number: int) -> int:
            with server.client() as client:
                answer = client.post("/v1/predict", content=data[number % 8])
            if answer.status_code == 200:
                found = {entry["name"]: entry["probability"] for entry in answer.json()["top"]}
                assert found == pytest.approx(wanted[number % 8], abs=1e-4)
            else:
                assert message(answer) == (503, "busy")
                assert answer.headers["retry-after"] == "1"
            return answer.status_code

        with ThreadPoolExecutor(200) as pool:
            statuses = list(pool.map(ask, range(200)))
        assert statuses.count(200) >= 64
        with server.client() as client:
            assert answer_of(client, data[0]) == pytest.approx(wanted[0], abs=1e-4)
        assert server.stop() == 0


def test_slow_lost_and_oversized_clients_do_no_harm(run: Path) -> None:
    data = encoded(picture())
    with serving(run, "--timeout", "2", "--threads", "1") as server, server.client() as client:
        wanted = answer_of(client, data)
        with raw(server) as slow:
            slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            start = time.monotonic()
            reply = slow.recv(4096).decode()
            assert reply.startswith("HTTP/1.1 408")
            assert "too_slow" in reply + slow.recv(4096).decode()
            assert time.monotonic() - start < 15
        for _ in range(20):
            with raw(server) as lost:
                head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
                lost.sendall(head.encode() + data[: random.Random(0).randrange(len(data))])
        with raw(server) as lost:
            lost.sendall(head.encode() + data)
        large = client.post("/v1/predict", content=b"\0" * 200_000_000)
        assert message(large) == (413, "too_large")
        with raw(server) as nonsense:
            nonsense.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
            assert nonsense.recv(4096).startswith(b"HTTP/1.1 400")
        assert answer_of(client, data) == pytest.approx(wanted, abs=1e-4)
        told = client.get("/metrics").text
        assert "\nfixres_held_bytes 0\n" in told
        assert not [line for line in server.log if "Traceback" in line], server.log


def test_a_stop_under_load_answers_what_is_in_flight(run: Path) -> None:
    data = encoded(picture())
    with serving(run, "--threads", "1") as server:
        statuses: list[int] = []

        def ask(_: int) -> None:
            with server.client() as client:
                while True:
                    try:
                        statuses.append(client.post("/v1/predict", content=data).status_code)
                    except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                        return

        with ThreadPoolExecutor(16) as pool:
            running = [pool.submit(ask, i) for i in range(16)]
            try:
                while len(statuses) < 30:
                    time.sleep(0.05)
                code = server.stop()
            finally:
                # Whatever happens, the clients must see an end.
                server.process.kill()
            for one in running:
                one.result()
        assert code == 0
        assert len(statuses) > 20
        assert set(statuses) <= {200, 503}
        assert not [line for line in server.log if "Traceback" in line], server.log


def test_a_file_replaced_meanwhile_changes_nothing(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    data = encoded(picture())
    with serving(folder, "--threads", "1") as server, server.client() as client:
        before = answer_of(client, data)
        weights = folder / "model" / "model.safetensors"
        weights.write_bytes(b"\0" * weights.stat().st_size)
        assert answer_of(client, data) == pytest.approx(before, abs=1e-6)
        shutil.rmtree(folder)
        assert client.post("/v1/compare", content=data).status_code == 200


def test_several_workers_share_the_work_and_their_counters(run: Path, tmp_path: Path) -> None:
    data = [encoded(picture(i)) for i in range(8)]
    environment = {"TMPDIR": str(tmp_path)}
    with serving(run, "--workers", "2", "--threads", "1", environment=environment) as server:

        def ask(number: int) -> int:
            with server.client(120) as client:
                return client.post("/v1/predict", content=data[number % 8]).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(80))) == {200}
        with server.client() as client:
            told = client.get("/metrics").text
        assert "\nfixres_pictures_total 80\n" in told
        assert len(list(tmp_path.rglob("counter_*.db"))) == 2
        assert server.stop() == 0
    assert not list(tmp_path.rglob("*.db"))


def test_memory_stays_where_it_was(run: Path, tmp_path: Path) -> None:
    data = [encoded(picture(i, (400, 300))) for i in range(8)]
    with serving(run, "--threads", "1", environment={"TMPDIR": str(tmp_path)}) as server:

        def ask(num: int) -> None:
            with server.client() as client:
                for i in range(num):
                    client.post("/v1/predict", content=data[i % 8] if i % 10 else b"damaged" * 1000)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, [60] * 8))
        before = server.resident_bytes()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, [125] * 8))
        assert server.resident_bytes() < 1.05 * before
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a file with a few of its bytes changed, cut, doubled or moved."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8, 40))):
        place = chance.randrange(len(changed))
        what = chance.randrange(4)
        if what == 0:
            changed[place] = chance.randrange(256)
        elif what == 1:
            del changed[place : place + chance.randrange(1, 200)]
        elif what == 2:
            changed[place:place] = changed[place : place + chance.randrange(1, 200)]
        else:
            changed[place : place + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        if not changed:
            return b""
    return bytes(changed)


def test_damaged_files_never_break_the_server(run: Path) -> None:
    seconds = float(os.environ.get("FIXRES_FUZZ_SECONDS", "60"))
    chance = random.Random(int(os.environ.get("FIXRES_FUZZ_SEED", "0")))
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    sound = [encoded(picture(i, (60, 50)), kind) for i, kind in enumerate(kinds)]
    deep = encoded(picture(9).convert("L").convert("I;16"), "PNG")
    palette = encoded(picture(9).quantize(16), "PNG")
    statuses: dict[int, int] = {}
    with serving(run, "--threads", "1", "--max-megapixels", "4") as server, server.client() as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            data = mutated(chance.choice([*sound, deep, palette]), chance)
            path = chance.choice(("/v1/predict", "/v1/predict?size=32", "/v1/compare", "/v1/predict/batch"))
            if path.endswith("batch") or chance.random() < 0.2:
                name = "files" if path.endswith("batch") else "file"
                answer = client.post(path, files={name: ("a", data)})
            elif chance.random() < 0.05:
                answer = client.post(path, content=data, headers={"content-type": "multipart/form-data; boundary=a"})
            else:
                answer = client.post(path, content=data)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                message(answer)
            assert answer.status_code in (200, 400, 413, 415, 422), (answer.status_code, answer.text, data.hex()[:200])
        assert server.process.poll() is None
        assert not [line for line in server.log if "Traceback" in line], server.log[-30:]
    print(f"{sum(statuses.values())} damaged requests: {statuses}")
    assert statuses[200] > 10
    assert statuses[422] > 10


def test_ten_seconds_of_load_without_a_wrong_answer(run: Path) -> None:
    from tests.support.load_tester import Load, measure_load

    data = [encoded(picture(i, (300, 200))) for i in range(20)]
    product = load(run)
    predictor = Predictor(product, Runtime(RuntimeSettings(device="cpu", threads=1)), len(product.classes))
    wanted = [np.array([dict(p.top)[c] for c in product.classes]) for p in predictor(data)]
    with serving(run, "--threads", "1") as server:
        found = measure_load(Load(server.url, clients=64, seconds=10), data, wanted, product.classes)
    assert found.num_wrong == 0
    assert set(found.statuses) <= {200, 503}
    assert found.statuses[200] > 100
    assert found.p50 <= found.p95 <= found.p99


def test_the_connection_is_kept_between_requests(run: Path) -> None:
    with serving(run, "--threads", "1") as server:
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        for _ in range(3):
            connection.request("POST", "/v1/predict", body=encoded(picture()))
            answer = connection.getresponse()
            assert answer.status == 200
            json.loads(answer.read())
            assert connection.sock is not None
