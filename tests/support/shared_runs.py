"""Runs that the whole test run shares: made once for all workers, for every test to read and for none to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def shared_run(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return the run folder `name`, which whoever comes first makes; others wait for it."""
    folder.mkdir(exist_ok=True)
    run, listing = folder / name, folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        if not listing.exists():
            make(run)
            listing.write_text(json.dumps(stamps(run)))
    return run


def stamps(run: Path) -> dict[str, list[int]]:
    """Return size and time of change of every file below `run`."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def require_untouched(run: Path) -> None:
    """Fail where a test wrote into a shared run: it must copy the folder first."""
    made = json.loads(run.with_name(f"{run.name}.json").read_text())
    now = stamps(run)
    changed = sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))
    assert not changed, f"a test wrote into the shared run {run.name}: {', '.join(changed)}"
