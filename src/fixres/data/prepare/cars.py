"""Stanford Cars in the three layouts it is found in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixres.data.prepare.matlab import read_mat
from fixres.data.prepare.parts import Job, Picture, pick, read_ready
from fixres.errors import UserError
from fixres.io.archives import members

_TRAIN, _TEST, _META = "cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat"


def read_cars(job: Job) -> Iterator[Picture]:
    """Yield train and test of Stanford Cars; classes are make, model and year."""
    if "annos" in job.found:
        yield from _one_archive(job)
    elif "devkit" in job.found:
        yield from _two_archives(job)
    else:
        yield from read_ready(job, "AM General Hummer SUV 2000", r".+ (19|20)[0-9]{2}")


def _one_archive(job: Job) -> Iterator[Picture]:
    table = read_mat(job.found["annos"])
    names = [str(name) for name in table["class_names"]]
    wanted = {}
    for row in table["annotations"]:
        path = _field(row, "relative_im_path", job.found["annos"])
        split = "test" if int(_field(row, "test", job.found["annos"])) else "train"
        wanted[str(path).rsplit("/", 1)[-1]] = (split, _class_name(row, names, job.found["annos"]))
    yield from pick(job, "images", wanted, ("car_ims",))


def _two_archives(job: Job) -> Iterator[Picture]:
    devkit = _devkit(job)
    names = [str(name) for name in read_mat(devkit[_META], _META)["class_names"]]
    for key, split, file in (("train", "train", _TRAIN), ("test", "test", _TEST)):
        path = Path(file)
        wanted = {}
        for row in read_mat(devkit[file], file)["annotations"]:
            wanted[str(_field(row, "fname", path))] = (split, _class_name(row, names, path))
        yield from pick(job, key, wanted, (f"cars_{split}",))


def _devkit(job: Job) -> dict[str, bytes]:
    """Return the three tables: from the devkit, and the test labels from wherever they lie."""
    found: dict[str, bytes] = {}
    for key in ("labels", "devkit"):
        path = job.found.get(key)
        if key == "labels" and path is not None:
            found[_TEST] = path.read_bytes()
        elif path is not None:
            for member in members(path):
                name = member.name.rsplit("/", 1)[-1]
                if name in (_TRAIN, _TEST, _META):
                    found.setdefault(name, member.read())
    for name in (_TRAIN, _META, _TEST):
        if name not in found:
            hint = "put it beside the archives: the devkit itself has no labels of the test pictures"
            raise UserError(
                f"{job.found['devkit']} does not hold {name}\n  {hint if name == _TEST else 'fetch it again'}"
            )
    return found


def _field(row: Any, name: str, path: Path) -> Any:
    try:
        return row[name]
    except (ValueError, IndexError, TypeError, KeyError):
        raise UserError(f"{path} has no field '{name}' for every picture\n  it is not the table of this set") from None


def _class_name(row: Any, names: list[str], path: Path) -> str:
    number = int(_field(row, "class", path))
    if not 1 <= number <= len(names):
        raise UserError(f"{path} names class {number}; there are {len(names)}")
    return names[number - 1]
