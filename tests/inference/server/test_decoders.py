"""Pictures are decoded in processes that can be ended, and large ones only where there is room."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from fixres.data.decode import decode
from fixres.data.evaluation_view import evaluation_view
from fixres.inference.server import decoders as module
from fixres.inference.server.decoders import Decoders
from fixres.inference.server.read_picture import Task
from fixres.inference.server.schemas import Problem
from fixres.resolution import Preprocess
from tests.support.serving import encoded, picture

VIEWS = (Preprocess(32), Preprocess(48))


def task(data: bytes, free_pixels: int = 1_000_000) -> Task:
    return Task("the picture", data, VIEWS, 1_000_000, free_pixels)


def with_decoders(work: Callable[[Decoders], Awaitable[None]], num: int = 2, seconds: float = 20) -> None:
    """Run `work` with decoders that are closed after it, within a minute."""

    async def run() -> None:
        decoders = Decoders(num, seconds, 1_000_000)
        try:
            await asyncio.wait_for(work(decoders), 60)
        finally:
            decoders.close()

    asyncio.run(run())


def pids(decoders: Decoders) -> list[int]:
    return [worker.pid for worker in decoders._idle if worker is not None]


def test_a_picture_comes_back_as_the_network_sees_it_at_every_size() -> None:
    data = encoded(picture(3, (200, 150)))

    async def work(decoders: Decoders) -> None:
        views = await decoders(task(data))
        for view, preprocess in zip(views, VIEWS, strict=True):
            assert np.array_equal(view, np.array(evaluation_view(decode(data, "it"), preprocess)))

    with_decoders(work)


def test_decoders_are_small() -> None:
    async def work(decoders: Decoders) -> None:
        await decoders(task(encoded(picture())))
        for pid in pids(decoders):
            assert "torch" not in Path(f"/proc/{pid}/maps").read_text()

    with_decoders(work)


def test_a_decoder_that_takes_too_long_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_SECONDS", 0.5)
    data = encoded(picture())

    async def work(decoders: Decoders) -> None:
        await asyncio.gather(*(decoders(task(data)) for _ in range(4)))
        before = pids(decoders)
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        asked = [asyncio.ensure_future(decoders(task(data))) for _ in range(2)]
        await asyncio.sleep(1)
        assert not decoders.is_ready
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, Problem)
            assert (answer.status, answer.code) == (413, "too_much_work")
        assert decoders.is_ready
        assert not set(before) & set(pids(decoders))
        await asyncio.sleep(0.3)
        for pid in before:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert len(await decoders(task(data))) == 2

    with_decoders(work, seconds=3)


def test_a_decoder_that_was_killed_while_idle_costs_no_picture() -> None:
    data = encoded(picture())

    async def work(decoders: Decoders) -> None:
        for _ in range(2):
            for pid in pids(decoders):
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.2)
            found = await asyncio.gather(*(decoders(task(data)) for _ in range(2)))
            assert [len(views) for views in found] == [2, 2]

    with_decoders(work)


def test_single_pictures_go_before_those_of_requests_with_many() -> None:
    data = encoded(picture(4, (1000, 1000)))
    order: list[str] = []

    async def ask(decoders: Decoders, name: str, is_one_of_many: bool) -> None:
        await decoders(task(data), is_one_of_many=is_one_of_many)
        order.append(name)

    async def work(decoders: Decoders) -> None:
        await asyncio.gather(*(ask(decoders, "first", False) for _ in range(2)))
        many = [asyncio.ensure_future(ask(decoders, "many", True)) for _ in range(20)]
        await asyncio.sleep(0)
        single = [asyncio.ensure_future(ask(decoders, "single", False)) for _ in range(3)]
        await asyncio.gather(*single)
        # Two were at work already, and one may have come to its turn between the three.
        assert order.count("many") <= 5
        await asyncio.gather(*many)
        assert decoders._turns._num_free == 2

    with_decoders(work)


def test_many_are_answered_beside_any_number_of_single_pictures() -> None:
    async def run() -> None:
        turns, order = module._Turns(1), list[str]()

        async def take(name: str, is_one_of_many: bool) -> None:
            async with turns.one(is_one_of_many):
                order.append(name)
                await asyncio.sleep(0)

        async with turns.one(False):
            waiting = [asyncio.ensure_future(take("single", False)) for _ in range(12)]
            waiting += [asyncio.ensure_future(take("many", True)) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert "".join(name[0] for name in order) == "ssssmssssmsss"
        assert turns._num_free == 1

    asyncio.run(run())


def test_a_queue_of_single_pictures_makes_the_server_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_SECONDS", 0.2)

    async def work(decoders: Decoders) -> None:
        async with decoders._turns.one(False), decoders._turns.one(False):
            assert decoders.is_ready
            waiting = asyncio.ensure_future(decoders(task(encoded(picture()))))
            await asyncio.sleep(0.5)
            assert not decoders.is_ready
        await waiting
        assert decoders.is_ready

    with_decoders(work)


def test_a_decoder_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data, start = encoded(picture()), module._start

    async def work(decoders: Decoders) -> None:
        for pid in pids(decoders):
            os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr(module, "_start", lambda: None)
        await asyncio.gather(*(decoders(task(data)) for _ in range(2)), return_exceptions=True)
        for _ in range(3):
            with pytest.raises(Problem) as full:
                await decoders(task(data))
            assert (full.value.status, full.value.code) == (503, "busy")
        monkeypatch.setattr(module, "_start", start)
        assert len(await decoders(task(data))) == 2

    with_decoders(work)


def test_one_that_gives_up_waiting_leaves_its_decoder_to_others() -> None:
    data = encoded(picture())

    async def work(decoders: Decoders) -> None:
        await decoders(task(data))
        for pid in pids(decoders):
            os.kill(pid, signal.SIGSTOP)
        asked = (asyncio.wait_for(decoders(task(data)), 0.2) for _ in range(2))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in found] == [TimeoutError] * 2
        assert len(await decoders(task(data))) == 2

    with_decoders(work)


def test_large_pictures_are_decoded_one_after_the_other_and_leave_a_decoder_free() -> None:
    large, small = encoded(picture(1, (900, 900))), encoded(picture())

    async def work(decoders: Decoders) -> None:
        most = 0
        room = decoders._room

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, 1_000_000 - room._left)
                await asyncio.sleep(0.001)

        watching = asyncio.ensure_future(watch())
        found = await asyncio.gather(
            *(decoders(task(large, free_pixels=10_000)) for _ in range(6)), decoders(task(small, 10_000))
        )
        watching.cancel()
        assert all(len(views) == 2 for views in found)
        assert 810_000 <= most <= 1_000_000
        assert room._left == 1_000_000

    with_decoders(work, num=3)


def test_closing_ends_decoders_that_do_not_answer() -> None:
    data = encoded(picture())
    stopped: list[int] = []

    async def run() -> None:
        decoders = Decoders(2, 60, 1_000_000)
        await decoders(task(data))
        stopped.extend(pids(decoders))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(decoders(task(data)))
        await asyncio.sleep(0.2)
        decoders.close()
        with pytest.raises(Problem):
            await asked

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 20
    for pid in stopped:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
