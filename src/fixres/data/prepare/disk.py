"""What a preparation does on the disk besides pictures: one process at a time, small files, errors for people."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fixres.errors import UserError


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Let only one process make `out`."""
    lock = FileLock(out.with_name(out.name + ".part.lock"), timeout=0)
    with disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is preparing {out}\n  wait for it, or use another --out") from None
    try:
        yield
    finally:
        # Whoever waits for this file finds `out` made or nothing begun, whether it holds the old lock or a new one.
        if not out.with_name(out.name + ".part").exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def disk(part: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {part.parent} is full\n  what is done is kept; make room, and the same command goes on"
            ) from error
        where = error.filename or part
        raise UserError(
            f"{where} cannot be written or read ({error.strerror or error})\n  use another --out"
        ) from error


def files(root: Path) -> Iterator[Path]:
    """Yield every file below `root`, in no order."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder) / name


def gigabytes(num_bytes: int) -> str:
    """Return a number of bytes for people."""
    return f"{num_bytes / 1e9:.1f} GB"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, or None when there is no such file.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error})\n  delete it, and what it stands for, to start over"
        ) from None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    # runlog writes atomically too, but importing it imports torch, which a preparation need not wait for.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
