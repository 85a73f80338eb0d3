"""Files written whole or not at all, one process at a time, and known beforehand to be writable."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fixres.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, writer: Callable[[Path], Any]) -> None:
    """Let `writer` fill a temporary file in the same folder, flush it to disk, then put it in place.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    try:
        write_whole(path, writer)
    except OSError as error:
        raise cannot_write(path, error) from error
    except RuntimeError as error:
        # What torch.save makes of a disk that ends in the middle of a file.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise cannot_write(path, OSError(errno.ENOSPC, "the disk is full, or the file would be too large")) from error


def write_whole(path: Path, writer: Callable[[Path], Any]) -> None:
    """Do what `write_with` does for callers who have words of their own for a full disk.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for people of a file that cannot be written."""
    return UserError(f"cannot write {path}: {error.strerror or error}\n  make room, or name another place with --out")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder reach the disk; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable_file(path: Path) -> None:
    """Refuse a file that could not be written; nothing is left behind.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    _try_folder(path.parent, path)


def require_writable_folder(path: Path) -> None:
    """Make a folder, or refuse one in which nothing could be written.

    Raises:
        UserError: it is a file, or cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give the name of a folder")
    _try_folder(path, path)


def require_room(folder: Path, num_bytes: int, what: str) -> None:
    """Refuse work whose result does not fit on the disk of an existing folder.

    Raises:
        UserError: fewer than `num_bytes` are free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(
            f"{what} need {_bytes(num_bytes)}, the disk of {folder} has {_bytes(free)} free\n"
            "  make room, or name a place on another disk with --out"
        )


def _try_folder(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".fixres-")
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}\n  name another place with --out") from error


def _bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,} bytes"


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
    """Write a JSON file whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
