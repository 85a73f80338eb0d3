"""Runs a function in several processes that form a group, without paying for the imports again."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_processes(count: int, function: Callable[..., Any], *args: Any, seconds: float = 120.0) -> list[Any]:
    """Return what `function(*args)` returned, or the exception it raised, in every one of `count` processes.

    One process is started without a group. A process that ends without either has None.
    """
    context = multiprocessing.get_context("fork")
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    children = [
        context.Process(target=_child, args=(rank, count, port, pipes[rank][1], function, args))
        for rank in range(count)
    ]
    for child in children:
        child.start()
    for _, sender in pipes:
        sender.close()
    results = []
    try:
        for receiver, _ in pipes:
            try:
                results.append(pickle.loads(receiver.recv_bytes()) if receiver.poll(seconds) else TimeoutError())
            except EOFError:
                results.append(None)
    finally:
        for child in children:
            child.join(5)
            child.kill()
    return results


def _child(rank: int, count: int, port: int, sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if count > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(count),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    try:
        result = function(*args)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        result = error
    try:
        # As bytes: a tensor sent as it is lives in memory that ends with this process.
        content = pickle.dumps(result)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{result!r} cannot be sent"))
    sender.send_bytes(content)
    sender.close()
    os._exit(0)
