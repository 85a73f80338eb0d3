"""Archives to a folder collection: resumed after an interruption, counted, and put in place whole.

While it is being made it is called OUT.part, and OUT.part.json says of what. A picture is written under another name
and then renamed, so one that is there is whole; what is there with the right size is not written again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixres.data.prepare.known_sets import find_set
from fixres.data.prepare.official_archives import fingerprint, locate, md5_of, picture_bytes
from fixres.data.prepare.parts import DataSet, Job, Options, Picture, Progress
from fixres.errors import UserError
from fixres.io.archives import UnpacksTooLargeError
from fixres.io.files import disk, files, read_json, reserved, write_json

RECORD = "fixres-data.json"
"""Beside the pictures: what they are, where they come from, how many there are."""
_INCOMING = ".incoming"
_BLOCK_BYTES = 4096
_PROGRESS_EVERY = 200
_MAX_NAME_BYTES = 255
_PLAIN = Options()


@dataclass(frozen=True)
class Report:
    """What was made."""

    name: str
    out: Path
    counts: Mapping[str, int]
    """Pictures per split; the split '' where the set has none."""
    num_classes: int
    is_complete: bool
    """Whether these are the published numbers of pictures and classes."""
    checksums: Mapping[str, str]
    """What was found of every source file: 'as published', 'not as published', 'none published' or 'a folder'."""
    license: str
    notes: tuple[str, ...]
    num_resumed: int
    """Pictures that an earlier, interrupted run had written."""
    was_there: bool
    """Whether it had been made before, so that nothing was done."""


def prepare(
    name: str,
    source: Path,
    out: Path,
    progress: Progress | None = None,
    options: Options = _PLAIN,
) -> Report:
    """Turn the official files of data set `name`, in folder `source`, into a folder collection at `out`.

    An interrupted preparation goes on where it was when it is asked for again. The files are only read.

    Args:
        name: of the data set, as in `SETS`.
        source: folder that holds the archives, or one archive.
        out: folder to make; it appears when everything is in it.
        progress: told what is being done, and how far it is.
        options: what the user chose.

    Raises:
        UserError: unknown set, missing or damaged files, wrong counts, no room, `out` is in use.
    """
    info = find_set(name)
    out = out.expanduser().absolute()
    found, notes = locate(info, source, options)
    _check_place(out, found)
    with reserved(out):
        if (record := read_json(out / RECORD)) is not None:
            return _already(info, options, out, record)
        return _Work(info, found, options, notes, out=out, progress=progress or (lambda *_: None)).run()


@dataclass(kw_only=True)
class _Work(Job):
    """One preparation."""

    out: Path
    progress: Progress
    num_resumed: int = 0
    folders: set[Path] = field(default_factory=set)
    room: int = 0
    """Bytes that were free on the disk at the last look, less what has been written since."""

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")

    @property
    def journal_file(self) -> Path:
        return self.out.with_name(self.out.name + ".part.json")

    def run(self) -> Report:
        journal = self._begin()
        try:
            return self._make(journal)
        except UserError as error:
            # What was refused before its first picture leaves nothing behind, and nor does what no one can go on with.
            if isinstance(error, UnpacksTooLargeError) or not any(files(self.part)):
                self._discard()
            raise

    def _make(self, journal: dict[str, Any]) -> Report:
        checksums = self._check_files(journal)
        self._check_room()
        counts, labels = self._write_pictures()
        self._check_disk(counts)
        is_complete = self._check_counts(counts, labels)
        record = {
            "set": self.info.name,
            "title": self.info.title,
            "counts": counts,
            "num_classes": len(set().union(*labels.values())),
            "complete": is_complete,
            "license": self.info.license,
            "page": self.info.page,
            "sources": checksums,
            "options": _choices(self.options),
            "notes": self.notes,
            **self.record,
        }
        self._finish(record)
        return _report(self.out, record, num_resumed=self.num_resumed)

    def _begin(self) -> dict[str, Any]:
        """Return the journal of the work so far, which must be of the same files and options."""
        journal: dict[str, Any] = {
            "set": self.info.name,
            "options": _choices(self.options),
            "sources": fingerprint(self.found),
            "md5": {},
        }
        before = read_json(self.journal_file) or {}
        is_same = all(before.get(key) == journal[key] for key in ("set", "options", "sources"))
        with disk(self.part):
            if not before and self.part.exists():
                raise UserError(
                    f"{self.part} is in the way, and was not left by a preparation\n  move it, or use another --out"
                )
            if not is_same and self.part.is_dir() and any(self.part.iterdir()):
                raise UserError(
                    f"{self.part} was begun from other files or with other options (set {before.get('set')})\n"
                    "  ask for the same again, delete it to start over, or use another --out"
                )
            if not is_same:
                write_json(self.journal_file, journal)
            self.part.mkdir(exist_ok=True)
            (self.part / _INCOMING).unlink(missing_ok=True)
        return before if is_same else journal

    def _discard(self) -> None:
        with disk(self.part):
            shutil.rmtree(self.part, ignore_errors=True)
            self.journal_file.unlink(missing_ok=True)

    def _check_files(self, journal: dict[str, Any]) -> dict[str, str]:
        """Return what is known of every source; refuse one that is not as published."""
        known = {}
        for key, path in self.found.items():
            known[path.name] = "a folder" if path.is_dir() else "none published"
            expected = self.info.files[key].md5
            # What is called otherwise is not the published file.
            if not expected or path.is_dir() or path.name != self.info.files[key].names[0]:
                continue
            digest = journal["md5"].get(key)
            if digest is None:
                digest = md5_of(path, self.progress)
                journal["md5"][key] = digest
                with disk(self.part):
                    write_json(self.journal_file, journal)
            known[path.name] = "as published" if digest == expected else "not as published"
            if digest != expected:
                text = f"{path} is not the published file: MD5 {expected} expected, {digest} found"
                if not self.options.allow_partial:
                    raise UserError(f"{text}\n  fetch it again, or take it as it is with --allow-partial")
                self.notes.append(text)
        return known

    def _check_room(self) -> None:
        num_pictures = sum(self.info.expected(self.options).values())
        with disk(self.part):
            done = sum(entry.stat().st_size for entry in files(self.part))
        content = picture_bytes(self.info, self.found)
        # Half a block is lost at the end of every file, on average; no more blocks than there is content.
        self._require_room(content + min(num_pictures * _BLOCK_BYTES // 2, content) - done)

    def _require_room(self, needed: int) -> None:
        if needed > self.room:
            with disk(self.part):
                self.room = shutil.disk_usage(self.part).free
        if needed > self.room:
            kept = "; what is done is kept, and the same command goes on" if any(files(self.part)) else ""
            raise UserError(
                f"about {needed / 1e9:.1f} GB are needed in {self.out.parent}, {self.room / 1e9:.1f} GB are free\n"
                f"  make room, or use another --out{kept}"
            )

    def _write_pictures(self) -> tuple[dict[str, int], dict[str, set[str]]]:
        """Return the number of pictures and the classes of every split."""
        counts: Counter[str] = Counter()
        labels: dict[str, set[str]] = {}
        seen: set[int] = set()
        total = sum(self.info.expected(self.options).values())
        for i, picture in enumerate(self.info.read(self), start=1):
            place = hash((picture.split, picture.label, picture.name))
            if place in seen:
                raise UserError(f"{picture.split}/{picture.label}/{picture.name} comes twice in the files of this set")
            seen.add(place)
            labels.setdefault(picture.split, set()).add(picture.label)
            counts[picture.split] += 1
            self._put(picture)
            if i % _PROGRESS_EVERY == 0:
                self.progress("writing pictures", i, max(total, i))
        self.progress("writing pictures", counts.total(), max(total, counts.total()))
        order = [split for split in ("", "train", "val", "test") if counts[split]]
        return {split: counts[split] for split in order}, labels

    def _put(self, picture: Picture) -> None:
        """Write one picture, unless it is there."""
        for name in (picture.label, picture.name):
            if (
                not name
                or name[0] == "."
                or any(c in name for c in "/\\\0")
                or len(os.fsencode(name)) > _MAX_NAME_BYTES
            ):
                raise UserError(f"the files of this set name {name[:80]!r}, which no file or folder can be called")
        folder = self.part / picture.split / picture.label
        target = folder / picture.name
        with disk(self.part):
            if folder not in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
                self.folders.add(folder)
            with contextlib.suppress(FileNotFoundError):
                if target.stat().st_size == picture.size:
                    self.num_resumed += 1
                    return
        # A tar that was packed does not say beforehand what it unpacks to.
        self._require_room(picture.size)
        self.room -= picture.size
        content = picture.read()
        incoming = self.part / _INCOMING
        with disk(self.part):
            incoming.write_bytes(content)
            incoming.replace(target)

    def _check_disk(self, counts: Mapping[str, int]) -> None:
        """Count what lies in the folder: names that a disk takes for equal, or a stranger's files, would show here."""
        with disk(self.part):
            there = _count(self.part, counts)
        if there != dict(counts):
            raise UserError(
                f"{self.part} holds {_spelled(there)}, but {_spelled(counts)} were written\n"
                "  delete it and start over, on a disk that tells upper from lower case"
            )

    def _check_counts(self, counts: Mapping[str, int], labels: Mapping[str, set[str]]) -> bool:
        expected = self.info.expected(self.options)
        num_classes = self.info.expected_classes(self.options)
        most = max(map(len, labels.values()), default=0)
        if not 0 < most <= num_classes:
            self._discard()
            raise UserError(
                f"{', '.join(str(path) for path in self.found.values())} is not {self.info.title}, not even a part of "
                f"it: {num_classes} classes expected, {most or 'no pictures'} found\n  fetch its files again"
            )
        wrong = []
        if dict(counts) != expected:
            wrong.append(f"{_spelled(expected)} expected, {_spelled(counts)} found")
        for split, found in labels.items():
            if len(found) != num_classes:
                where = f" in {split}" if split else ""
                wrong.append(f"{num_classes} classes expected, {len(found)} found{where}")
        if wrong and not self.options.allow_partial:
            raise UserError(
                f"{self.info.title} is not whole: {'; '.join(wrong)}\n"
                f"  fetch its files again, or keep what there is with --allow-partial ({self.part} is kept)"
            )
        self.notes.extend(f"not whole: {text}" for text in wrong)
        return not wrong

    def _finish(self, record: dict[str, Any]) -> None:
        with disk(self.part):
            for name, text in self.tables.items():
                (self.part / name).write_text(text, encoding="utf-8")
            write_json(self.part / RECORD, record)
            # The pictures must be on the disk before the name that says so.
            if hasattr(os, "sync"):
                os.sync()
            self.part.replace(self.out)
            self.journal_file.unlink()


def _choices(options: Options) -> dict[str, object]:
    """Return the options that decide what is written."""
    return {"split_inside": options.split_inside, "seed": options.seed, "keep_background": options.keep_background}


def _check_place(out: Path, found: Mapping[str, Path]) -> None:
    if out.is_dir() and not (out / RECORD).is_file() and any(out.iterdir()):
        raise UserError(f"{out} is not empty\n  give a new folder with --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file\n  give a new folder with --out")
    inside = next((path for path in found.values() if path.is_dir() and out.is_relative_to(path)), None)
    if inside is not None:
        raise UserError(f"{out} lies in {inside}, which is read\n  give a folder outside of it with --out")


def _report(out: Path, record: Mapping[str, Any], num_resumed: int = 0, was_there: bool = False) -> Report:
    return Report(
        name=record["set"],
        out=out,
        counts=record["counts"],
        num_classes=record["num_classes"],
        is_complete=record["complete"],
        checksums=record["sources"],
        license=record["license"],
        notes=tuple(record["notes"]),
        num_resumed=num_resumed,
        was_there=was_there,
    )


def _already(info: DataSet, options: Options, out: Path, record: dict[str, Any]) -> Report:
    """Return the report of a collection that is there, which must be the one asked for, and whole."""
    if record.get("set") != info.name or record.get("options") != _choices(options):
        raise UserError(
            f"{out} holds {record.get('title')}, made with {record.get('options')}\n  give another folder with --out"
        )
    counts: dict[str, int] = record["counts"]
    there = _count(out, counts)
    if there != counts:
        raise UserError(
            f"{out} holds {_spelled(there)}, but was made with {_spelled(counts)}\n  delete it and it is made again"
        )
    if not record["complete"] and not options.allow_partial:
        raise UserError(f"{out} is not whole: {'; '.join(record['notes'])}\n  accept it with --allow-partial")
    out.with_name(out.name + ".part.json").unlink(missing_ok=True)
    return _report(out, record, was_there=True)


def _count(root: Path, counts: Mapping[str, int]) -> dict[str, int]:
    """Return the pictures per split that lie below `root`, whose splits are those of `counts`."""
    places = (path.relative_to(root).parts for path in files(root))
    # What lies in the folder itself are tables about the pictures.
    return dict(Counter("" if "" in counts else parts[0] for parts in places if len(parts) > 1))


def _spelled(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{split} {count:,}" if split else f"{count:,} pictures" for split, count in counts.items()) or "none"
    )
