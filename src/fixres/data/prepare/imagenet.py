"""ImageNet-1k, Tiny-ImageNet-200 and mini-ImageNet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from fixres.data.prepare.parts import Job, Picture, below, folder_name, from_member, is_picture, read_mat, read_pairs
from fixres.errors import UserError, counted
from fixres.io.archives import decode_text, members, read_members, read_texts
from fixres.io.csv_text import CsvRows

_WNID = re.compile(r"n\d{8}")
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_META = "data/meta.mat"
_FEW_SHOT_SHARES = {"train": 0.64, "val": 0.16, "test": 0.2}
"""The shares of the classes' own splits (38,400, 9,600 and 12,000 of 60,000), taken inside every class instead."""


def read_imagenet(job: Job) -> Iterator[Picture]:
    """Yield train and val pictures of ILSVRC 2012; classes are WordNet ids."""
    if "train" in job.found:
        yield from _imagenet_train(job.found["train"])
    if "val" in job.found:
        yield from _imagenet_val(job)


def _imagenet_train(path: Path) -> Iterator[Picture]:
    for member in members(path):
        name = below(member.name, "ILSVRC2012_img_train", "train")
        if name.endswith(".tar"):
            label = _wnid(name.removesuffix(".tar").rsplit("/", 1)[-1], path)
            for inner in member.members():
                yield from_member("train", label, inner)
        elif "/" in name and is_picture(name):
            yield from_member("train", _wnid(name.split("/")[-2], path), member)


def _wnid(text: str, path: Path) -> str:
    if not _WNID.fullmatch(text):
        raise UserError(f"{path} holds {text[:60]!r} where a WordNet id such as n01440764 is meant")
    return text


def _imagenet_val(job: Job) -> Iterator[Picture]:
    rest = _val_labels(job)
    for member in members(job.found["val"]):
        stem = member.name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if not is_picture(member.name):
            continue
        label = rest.pop(stem, None)
        if label is None:
            raise UserError(f"{job.found['val']} holds {member.name}, which the ground truth does not list")
        yield from_member("val", label, member)
    job.missing(sorted(rest), str(job.found["val"]))


def _val_labels(job: Job) -> dict[str, str]:
    """Return the WordNet id of every validation picture, by its name without suffix."""
    if "solution" in job.found:
        return _solution(job.found["solution"])
    if "names" in job.found:
        return _lines_of_names(job.found["names"])
    meta_path = job.found["meta" if "meta" in job.found else "devkit"]
    truth_path = job.found["truth" if "truth" in job.found else "devkit"]
    lines = decode_text(_from_devkit(truth_path, _TRUTH), f"{_TRUTH} of {truth_path}").split()
    # Rows are (id, WordNet id, words, gloss, number of children, ...); inner nodes of the tree are no classes.
    rows = [tuple(row) for row in read_mat(_from_devkit(meta_path, _META), str(meta_path))["synsets"]]
    by_id = {int(row[0]): _wnid(str(row[1]), meta_path) for row in rows if int(row[4]) == 0}
    unknown = sorted({line for line in lines if not line.isdecimal() or int(line) not in by_id})
    if unknown:
        raise UserError(f"{truth_path}: class {unknown[0][:40]!r} of the ground truth is not in {_META}")
    return {f"ILSVRC2012_val_{i:08}": by_id[int(line)] for i, line in enumerate(lines, start=1)}


def _from_devkit(path: Path, name: str) -> bytes:
    if path.is_file() and path.name == name.rsplit("/", 1)[-1]:
        return path.read_bytes()
    return read_members(path, [name], "it is ILSVRC2012_devkit_t12.tar.gz that does")[name]


def _solution(path: Path) -> dict[str, str]:
    found = {}
    for row in csv.DictReader(io.StringIO(decode_text(path.read_bytes(), str(path)))):
        try:
            image, label = row["ImageId"], row["PredictionString"].split()[0]
        except (KeyError, IndexError, AttributeError):
            raise UserError(f"{path} has no columns ImageId and PredictionString, filled in every line") from None
        found[image] = _wnid(label, path)
    return found


def _lines_of_names(path: Path) -> dict[str, str]:
    """Read lines of `ILSVRC2012_val_00000001.JPEG n01751747`."""
    text = decode_text(path.read_bytes(), str(path)).replace(",", " ")
    pairs = read_pairs(text, path, "a picture and a WordNet id").items()
    return {picture.rsplit("/", 1)[-1].rsplit(".", 1)[0]: _wnid(label, path) for picture, label in pairs}


def read_tiny(job: Job) -> Iterator[Picture]:
    """Yield train and val pictures of Tiny-ImageNet-200. Its test pictures have no labels."""
    path = job.found["archive"]
    table = read_texts(path, ["val/val_annotations.txt"])["val/val_annotations.txt"]
    boxes = read_pairs(table, f"{path}: val_annotations.txt", "a picture and its class", "\t")
    rest = {picture: box.split("\t")[0] for picture, box in boxes.items()}
    unlabelled = 0
    for member in members(path):
        split, *parts = below(member.name, "tiny-imagenet-200").split("/")
        if not is_picture(member.name):
            continue
        if split == "train" and len(parts) == 3:
            yield from_member("train", parts[0], member)
        elif split == "val":
            label = rest.pop(parts[-1], None)
            if label is None:
                raise UserError(f"{path} holds {member.name}, which val_annotations.txt does not list")
            yield from_member("val", label, member)
        else:
            unlabelled += split == "test"
    job.missing(sorted(rest), str(path))
    if unlabelled:
        job.notes.append(f"the {unlabelled} pictures of test/ have no labels and are left out; val is the labelled one")


def read_mini(job: Job) -> Iterator[Picture]:
    """Yield the pictures of mini-ImageNet as its tables list them, or divided inside the classes.

    The usual tables divide the classes (for few-shot learning), so that no classifier can be tested on them.
    """
    places: dict[str, tuple[str, str]] = {}
    for split in ("train", "val", "test"):
        for file, label in _mini_table(job.found[split]):
            if file in places:
                raise UserError(f"{job.found[split]} lists {file}, which is already in {places[file][0]}")
            places[file] = (split, label)
    labels = {split: {label for s, label in places.values() if s == split} for split in ("train", "val", "test")}
    is_disjoint = not (labels["train"] & (labels["val"] | labels["test"]))
    inside = job.options.split_inside
    if inside is False and is_disjoint:
        raise UserError(
            "the tables of mini-ImageNet share no classes between train, val and test (they are for few-shot learning)"
            "\n  a classifier cannot be tested so; leave out --split-inside no to divide inside the classes"
        )
    if inside or (inside is None and is_disjoint):
        places = _divided_inside(places, job)
        reason = "the tables share no classes between their splits" if is_disjoint else "asked for"
        job.notes.append(
            f"divided inside every class, stratified, seed {job.options.seed} ({reason}); splits.csv says how"
        )
    rest = dict(places)
    by_name = {file.rsplit("/", 1)[-1]: file for file in places}
    unlisted = 0
    for member in members(job.found["images"]):
        name = below(member.name, "images")
        listed = name if name in rest else by_name.get(name.rsplit("/", 1)[-1])
        if listed not in rest:
            unlisted += is_picture(member.name)
            continue
        split, label = rest.pop(listed)
        yield from_member(split, label, member)
    job.missing(sorted(rest), str(job.found["images"]))
    if unlisted:
        job.notes.append(f"{counted(unlisted, 'picture')} that no table lists left out")


def _mini_table(path: Path) -> Iterator[tuple[str, str]]:
    reader = csv.reader(io.StringIO(decode_text(path.read_bytes(), str(path)), newline=""))
    header = [cell.strip().lower() for cell in next(reader, [])]
    if header[:2] != ["filename", "label"]:
        raise UserError(f"{path} does not begin with the columns filename,label")
    for row in reader:
        if not row:
            continue
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise UserError(f"{path}, line {reader.line_num}: a file name and a label are expected, found {row!r:.80}")
        yield row[0].strip(), folder_name(row[1])


def _divided_inside(places: dict[str, tuple[str, str]], job: Job) -> dict[str, tuple[str, str]]:
    from fixres.data.sampling import stratified_split

    files = sorted(places)
    parts = stratified_split([places[file][1] for file in files], _FEW_SHOT_SHARES, job.options.seed)
    divided = {files[i]: (split, places[files[i]][1]) for split, indices in parts.items() for i in indices.tolist()}
    rows = [[file, label, split] for file, (split, label) in sorted(divided.items())]
    job.tables["splits.csv"] = CsvRows(spreadsheet=True).text([["filename", "label", "split"], *rows])
    job.record["split_inside"] = {"seed": job.options.seed, "shares": _FEW_SHOT_SHARES}
    return divided
