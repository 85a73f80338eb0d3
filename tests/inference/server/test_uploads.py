"""Bad, large and odd bodies are answered, each with its code."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from torch import Tensor

from fixres.inference.server import app, uploads
from fixres.inference.server.network import open_network
from fixres.inference.server.schemas import Problem
from fixres.inference.server.settings import Limits, Settings
from fixres.inference.server.uploads import Admission, Upload, read_upload
from tests.support.serving import LIMITS, client_of, encoded, expected, message, named, picture


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


def test_what_curl_sends_is_taken_by_its_content(client: TestClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/v1/predict", content=encoded(picture()), headers=headers)
    assert answer.json() == client.post("/v1/predict", content=encoded(picture())).json()
    assert answer.status_code == 200


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
    assert message(client.post("/v1/predict", data={"size": "48"}, files={})) == (415, "not_a_picture")


def test_too_much_is_refused(client: TestClient) -> None:
    assert message(client.post("/v1/predict", content=b"\xff" * (LIMITS.body_bytes + 1))) == (413, "too_large")
    pieces = (b"\xff" * 100_000 for _ in range(20))
    assert message(client.post("/v1/predict", content=pieces)) == (413, "too_large")
    data = encoded(picture())
    two = [("file", ("a.jpg", data)), ("file", ("b.jpg", data))]
    assert message(client.post("/v1/predict", files=two)) == (413, "too_many_files")
    thousand = [("files", (f"{i}.jpg", b"x")) for i in range(1000)]
    assert message(client.post("/v1/predict/batch", files=thousand)) == (413, "too_many_files")


def test_a_full_server_says_when_to_come_back(run: Path) -> None:
    with client_of(run, limits=Limits(waiting=4, files=4)) as small:
        service_files = [("files", (f"{i}.png", encoded(picture(i), "PNG"))) for i in range(4)]
        assert small.post("/v1/predict/batch", files=service_files).status_code == 200
    with client_of(run, limits=Limits(waiting=3, files=4)) as smaller:
        answer = smaller.post("/v1/predict/batch", files=service_files)
        assert message(answer) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert smaller.post("/v1/predict/batch", files=service_files[:3]).status_code == 200
    with client_of(run, limits=Limits(held_bytes=8000)) as tight:
        assert message(tight.post("/v1/predict", content=encoded(picture(2, (900, 900))))) == (503, "busy")
    # A small file is large once it is what the network sees: 48 x 48 x 3 bytes each.
    tiny = [("files", (f"{i}.png", encoded(picture(i, (4, 4)), "PNG"))) for i in range(3)]
    with client_of(run, limits=Limits(held_bytes=18_000, files=4)) as tight:
        assert tight.post("/v1/predict/batch", files=tiny[:2]).status_code == 200
        assert message(tight.post("/v1/predict/batch", files=tiny)) == (413, "too_many_files")
        assert tight.post("/v1/predict/batch", files=tiny[:2]).status_code == 200


class _Slow:
    """A request whose body comes when it is told to."""

    def __init__(self, *chunks: bytes) -> None:
        self.headers = Headers({"content-type": "image/png"})
        self._chunks = chunks
        self.rest = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        await self.rest.wait()


def _arrive(admission: Admission, request: _Slow) -> asyncio.Task[Upload]:
    async def read() -> Upload:
        with admission.ticket() as ticket:
            return await read_upload(request, ticket, admission, 1)  # type: ignore[arg-type]

    return asyncio.ensure_future(read())


def _outcome(task: asyncio.Task[Upload]) -> str:
    if not task.done():
        return "waits"
    error = task.exception()
    return error.code if isinstance(error, Problem) else "read"


def test_requests_that_never_become_whole_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SOON_SECONDS", 0.3)
    monkeypatch.setattr(uploads, "_RESERVE", 2)

    async def run() -> None:
        admission = Admission(Limits(waiting=3, seconds=20))
        slow = [_arrive(admission, _Slow(b"x")) for _ in range(3)]
        await asyncio.sleep(0.05)
        # All places are taken by requests that may still be ordinary ones: the reserve is for those that are.
        for _ in range(4):
            whole = _Slow(b"picture")
            whole.rest.set()
            assert (await _arrive(admission, whole)).files == [("the picture", b"picture")]
        more = [_arrive(admission, _Slow(b"x")) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert [_outcome(task) for task in more] == ["waits", "waits", "busy"]
        await asyncio.sleep(0.6)
        assert [_outcome(task) for task in more] == ["too_slow", "too_slow", "busy"]
        assert [_outcome(task) for task in slow] == ["waits"] * 3
        late = _arrive(admission, _Slow(b"x"))
        await asyncio.sleep(0.05)
        # The one that has taken longest makes room.
        assert [_outcome(task) for task in slow] == ["too_slow", "waits", "waits"]
        assert _outcome(late) == "waits"
        for task in (*slow[1:], late):
            task.cancel()
        await asyncio.gather(*slow, *more, late, return_exceptions=True)
        assert (admission.pictures, admission.coming, admission.held_bytes, admission._arriving) == (0, 0, 0, [])

    asyncio.run(run())


def test_bytes_that_wait_for_their_rest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SOON_SECONDS", 0.2)

    async def run() -> None:
        admission = Admission(Limits(held_bytes=1000, seconds=20))
        large, small = _arrive(admission, _Slow(b"x" * 900)), _arrive(admission, _Slow(b"x" * 50))
        await asyncio.sleep(0.05)
        whole = _Slow(b"x" * 200)
        whole.rest.set()
        with pytest.raises(Problem, match="too many bytes"):
            await _arrive(admission, whole)
        await asyncio.sleep(0.3)
        assert len((await _arrive(admission, whole)).files) == 1
        assert [_outcome(task) for task in (large, small)] == ["too_slow", "waits"]
        small.cancel()
        await asyncio.gather(large, small, return_exceptions=True)
        assert admission.held_bytes == 0

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_told_so() -> None:
    async def run() -> None:
        admission = Admission(Limits(seconds=0.1))
        with pytest.raises(Problem) as slow:
            await _arrive(admission, _Slow(b"x"))
        assert (slow.value.status, slow.value.code) == (408, "too_slow")

    asyncio.run(run())


def test_what_is_decoded_leaves_the_memory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that waits for the network is what the network sees of it, not the megabytes it came in."""
    taken: list[Upload] = []
    read = app.read_upload

    async def remember(*arguments: Any) -> Upload:
        taken.append(await read(*arguments))
        return taken[-1]

    monkeypatch.setattr(app, "read_upload", remember)
    held: list[int] = []
    network = open_network(Settings(source=str(run), threads=1, limits=LIMITS))
    compute = network.compute["fixed"]

    def watched(images: Tensor, size: int) -> Any:
        held.append(sum(len(upload.files) for upload in taken))
        return compute(images, size)

    network.compute["fixed"] = watched
    settings = Settings(source=str(run), threads=1, limits=LIMITS)
    data = encoded(picture())
    with TestClient(app.make_app(network, settings), base_url="http://localhost") as opened:
        for path, form in (("predict", None), ("predict/batch", [("files", ("a.jpg", data))] * 3), ("compare", None)):
            body = {"content": data} if form is None else {"files": form}
            assert opened.post(f"/v1/{path}", **body).status_code == 200  # type: ignore[arg-type]
    assert len(taken) == 3
    assert set(held) == {0}
