"""One writer for a run folder: the kernel's lock decides on one machine, a sign of life between machines.

The kernel frees its lock whatever way a process dies, so a run that was killed can be resumed at once. Beside the lock
lies who holds it, in a file that is touched every half minute: a run on another machine counts as dead after five
minutes without that, since not every network file system carries locks from one machine to another.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fixres.errors import Notice, UserError
from fixres.io.files import cannot_write, write_text

LOCK_FILE = ".writer.lock"
HOLDER_FILE = ".writer.json"
HEARTBEAT_SECONDS = 30.0
DEAD_AFTER_SECONDS = 300.0

_held_here: set[Path] = set()
"""Folders locked by this process: the kernel's record locks do not keep a process from itself."""


@dataclass(frozen=True)
class Holder:
    """Who writes to a run folder."""

    host: str
    """Name of the machine."""
    machine: str
    """What tells machines apart whose containers have names of their own: the kernel's number of this boot."""
    pid: int
    """Number of the process, inside its container where it runs in one."""
    job: str
    """Number of the Slurm job, empty outside of one."""
    token: str
    """Random letters of this very run."""
    restarts: int = 0
    """How often Slurm had started the job again."""

    def describe(self) -> str:
        """Return the holder in words."""
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


def this_process() -> Holder:
    """Return this process as a holder."""
    return Holder(
        socket.gethostname(),
        _machine(),
        os.getpid(),
        os.environ.get("SLURM_JOB_ID", ""),
        secrets.token_hex(8),
        _count(os.environ.get("SLURM_RESTART_COUNT", "")),
    )


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def is_abandoned(folder: Path) -> bool:
    """Return whether the run that writes to a folder has ended without a word: it was killed, or its machine is gone.

    Nothing is written, so anyone who may read the folder can ask.
    """
    try:
        other = _read_holder(folder)
        if other is None or folder.resolve() in _held_here:
            return False
        is_locked = _is_locked(folder / LOCK_FILE) if other.machine == _machine() else None
        if is_locked is not None:
            return not is_locked
        return time.time() - (folder / HOLDER_FILE).stat().st_mtime > DEAD_AFTER_SECONDS
    except OSError:
        return False  # may not be read, or has just ended


def _read_holder(folder: Path) -> Holder | None:
    try:
        content: dict[str, Any] = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return Holder(
            **{key: content[key] for key in Holder.__dataclass_fields__ if key != "restarts" or key in content}
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # Cut short or not ours: it still gives signs of life, or does not.
        return Holder("an unknown machine", "", 0, "", "")


def _is_locked(path: Path) -> bool | None:
    """Return whether a living process of this machine has the kernel's lock, None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        with path.open("rb") as file:
            # Shared, so that it needs no right to write; it ends with the file.
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


class RunLock:
    """The right to write to a run folder, from `acquire` to `release`."""

    def __init__(self, folder: Path, *, take_over: bool = False) -> None:
        """Prepare; nothing is touched.

        Args:
            folder: the run folder.
            take_over: count a holder on another machine as dead, whatever signs of life it gives.
        """
        self.folder = folder
        self.holder = this_process()
        self._take_over = take_over
        self._descriptor: int | None = None
        self._is_lost = False
        self._end = threading.Event()

    def acquire(self) -> None:
        """Become the one writer of the folder, which is made where it is missing.

        Raises:
            UserError: another run writes to it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.folder.resolve() in _held_here:
                raise UserError(
                    f"{self.folder} is being written by this very process\n  give another folder with --out"
                )
            self._acquire()
        except OSError as error:
            self._drop_kernel_lock()
            raise cannot_write(self.folder, error) from error
        _held_here.add(self.folder.resolve())
        threading.Thread(target=self._stay_alive, name="run lock", daemon=True).start()

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self) -> None:
        is_free = self._take_kernel_lock()
        other = _read_holder(self.folder)
        if other is None and is_free is False:
            raise UserError(
                f"{self.folder} is being written by another run that is starting\n  wait for it, or stop it"
            )
        if other is not None:
            self._require_dead(other, is_free)
        if is_free is False:
            # Held by a machine that is gone: its lock goes with the file that bears it.
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            self._take_kernel_lock()
        write_text(self.folder / HOLDER_FILE, json.dumps(asdict(self.holder)) + "\n")

    def _require_dead(self, other: Holder, is_free: bool | None) -> None:
        """Raise UserError unless `other` is dead; `is_free` says what the kernel thinks, None that it has no locks."""
        is_here = other.machine == self.holder.machine
        if is_here and is_free:
            return
        age = self._seconds_since_sign_of_life()
        is_known_alive = is_here and is_free is False
        # Slurm starts a job again only where it holds the first start for dead.
        is_again = bool(other.job) and other.job == self.holder.job and self.holder.restarts > other.restarts
        if not is_known_alive and (self._take_over or is_again or age > DEAD_AFTER_SECONDS):
            return
        self._drop_kernel_lock()
        where = f"{self.folder} is being written by another run: {other.describe()}, last sign of life {age:.0f} s ago"
        if is_known_alive:
            raise UserError(f"{where}\n  wait for it, or stop it; or give another folder with --out")
        raise UserError(
            f"{where}\n  wait for it, or stop it; should it be gone, it counts as dead after "
            f"{DEAD_AFTER_SECONDS / 60:.0f} minutes without such a sign, or at once with --take-over"
        )

    def require_held(self) -> None:
        """Raise UserError when another run has taken the folder over: this one must write no more."""
        if self._is_lost:
            raise UserError(
                f"another run has taken {self.folder} over, so this one ends\n  it goes on there; nothing is lost"
            )

    def release(self) -> None:
        """Let others write; the folder holds no trace of the lock then."""
        self._end.set()
        _held_here.discard(self.folder.resolve())
        if not self._is_lost:
            with contextlib.suppress(OSError):
                if (now := _read_holder(self.folder)) is None or now.token == self.holder.token:
                    (self.folder / HOLDER_FILE).unlink(missing_ok=True)
                    (self.folder / LOCK_FILE).unlink(missing_ok=True)
        self._drop_kernel_lock()

    def _take_kernel_lock(self) -> bool | None:
        """Return whether the kernel gave its lock, None where the file system (or Windows) has none."""
        self._drop_kernel_lock()
        try:
            import fcntl
        except ImportError:
            return None
        path = self.folder / LOCK_FILE
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # A record lock: unlike that of flock, loader processes do not inherit it and keep it alive.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(descriptor)
                return False
            except OSError as error:
                os.close(descriptor)
                warnings.warn(
                    f"{self.folder}: this file system has no locks ({error.strerror}); two runs keep apart by signs of "
                    f"life alone, one every {HEARTBEAT_SECONDS:.0f} seconds",
                    Notice,
                    stacklevel=2,
                )
                return None
            if _is_same_file(descriptor, path):
                self._descriptor = descriptor
                return True
            os.close(descriptor)  # the run before has just removed it

    def _drop_kernel_lock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _seconds_since_sign_of_life(self) -> float:
        """Return how long ago the holder touched its file, both times by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".fixres-") as now:
            os.utime(now.name)
            return Path(now.name).stat().st_mtime - (self.folder / HOLDER_FILE).stat().st_mtime

    def _stay_alive(self) -> None:
        path = self.folder / HOLDER_FILE
        while not self._end.wait(HEARTBEAT_SECONDS):
            try:
                now = _read_holder(self.folder)
                if now is not None and now.token != self.holder.token:
                    self._is_lost = True
                    return
                os.utime(path)
            except OSError:
                continue  # a file system that does not answer now may do so later


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
