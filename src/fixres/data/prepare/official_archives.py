"""`fixres data download`: the official files of a set, from where its authors or hosts serve them."""

from __future__ import annotations

import shutil
from pathlib import Path

from fixres.data.prepare.known_sets import SETS, find_set
from fixres.data.prepare.locate import where_to_get
from fixres.data.prepare.parts import DataSet, Progress, SourceFile
from fixres.errors import UserError
from fixres.io.download.cache import fetch


def download(name: str, out: Path, progress: Progress | None = None) -> list[Path]:
    """Fetch the files of data set `name` into folder `out` and return their paths.

    What is there is checked, not fetched again; what broke off goes on; what has a published checksum must match it.

    Raises:
        UserError: unknown set, or one that cannot be had without an account; no network, no room, a wrong file.
    """
    info = find_set(name)
    if not info.can_download:
        fetchable = ", ".join(entry.name for entry in SETS.values() if entry.can_download)
        raise UserError(
            f"{info.title} cannot be fetched for you\n  {where_to_get(info)}\n"
            f"  then: fixres data prepare {info.name} --from DIR --out DIR\n  can be fetched: {fetchable}"
        )
    out = out.expanduser().absolute()
    files = [file for file in info.files.values() if file.url]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_room(info, files, out)
    except OSError as error:
        raise UserError(f"{out} cannot be used ({error.strerror or error})\n  use another --out") from error
    return [_fetch(file, out, progress) for file in files]


def _fetch(file: SourceFile, out: Path, progress: Progress | None) -> Path:
    name = file.names[0]

    def tell(done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"fetching {name}", done, total)

    return fetch(file.url, md5=file.md5, folder=out, name=name, progress=tell)


def _check_room(info: DataSet, files: list[SourceFile], out: Path) -> None:
    """Refuse to begin what would not fit; `fetch` checks every file again with the length its server states."""
    needed = 0
    for file in files:
        target = out / file.names[0]
        part = target.with_name(target.name + ".part")
        done = part.stat().st_size if part.exists() else 0
        needed += 0 if target.exists() else max(file.megabytes * 10**6 - done, 0)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{info.title} needs about {needed / 1e9:.1f} GB in {out}, {free / 1e9:.1f} GB are free\n"
            "  make room, or use another --out"
        )
