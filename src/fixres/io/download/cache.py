"""A file by its address or by its name, fetched unless it is there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from filelock import FileLock

from fixres.errors import UserError
from fixres.io.download.address import require_address, require_checksums
from fixres.io.download.transfer import Job, Progress, on_disk, put_in_place, transfer

_OFFLINE_VARIABLES = ("FIXRES_OFFLINE", "HF_HUB_OFFLINE")


def fetch(
    url: str,
    *,
    sha256: str = "",
    md5: str = "",
    folder: Path | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Path:
    """Return the path of the file at `url`, which is fetched unless it is there.

    Args:
        url: https, or http when a checksum is known.
        sha256: checksum, or its first digits (at least eight). Without it, and without `md5`, the one in a name such
            as `resnet18-f37072fd.pth` counts.
        md5: the same.
        folder: where it lies; PyTorch's own folder by default.
        name: its name there; the last part of the address by default.
        progress: told the bytes there are and the bytes there will be.

    Raises:
        UserError: it cannot be had, or is not what the checksum says. An interrupted transfer goes on the next time.
    """
    url = url.split("#")[0]
    name = name or require_address(url).path.rsplit("/", 1)[-1]
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise UserError(f"{url} does not end in the name of a file\n  give the address of one file")
    checksums = require_checksums(url, sha256, md5)
    job = Job(url, (folder or checkpoint_folder()) / name, checksums, progress)
    if job.target.is_file():
        return _require_right(job)
    for variable in _OFFLINE_VARIABLES:
        if os.environ.get(variable, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise job.error(f"{variable} is set, so no network is used")
    lock = FileLock(f"{job.target}.lock")
    with on_disk(job):
        job.target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        # Another process may have fetched it while this one waited.
        if job.target.is_file():
            return _require_right(job)
        transfer(job)
        put_in_place(job)
    finally:
        lock.release()
    return job.target


def checkpoint_folder() -> Path:
    """Return the folder in which PyTorch keeps what it fetched, without importing torch for it."""
    if "torch.hub" in sys.modules:
        return Path(sys.modules["torch.hub"].get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("TORCH_HOME", f"{cache}/torch"))
    return home.expanduser() / "hub" / "checkpoints"


def _require_right(job: Job) -> Path:
    """Return the path of the file that is there, or say why it is not the one that was asked for."""
    with on_disk(job):
        wrong = job.checksums.mismatch(job.target)
        origin = job.origin_file.read_text(encoding="utf-8").strip() if job.origin_file.exists() else job.origin
    if wrong:
        raise UserError(
            f"{job.target} is not the file that was asked for: {wrong}\n"
            f"  delete it and it is fetched again, or give the checksum of this one: #sha256=HEX"
        )
    if origin != job.origin and not job.checksums.known:
        raise UserError(
            f"{job.target} came from another address: {origin}\n"
            f"  delete it and {job.origin} is fetched, or give its checksum: {job.url}#sha256=HEX"
        )
    return job.target
