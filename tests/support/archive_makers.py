"""Miniature copies of the official archives, in their true layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

WNIDS = ("n01440764", "n01443537", "n01484850")


def jpeg(seed: int) -> bytes:
    """Return a small JPEG that differs from every other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tar_bytes(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """Return a tar; mode w:gz packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        folders: set[str] = set()
        for name, content in files.items():
            folder = name.rpartition("/")[0]
            if folder and folder not in folders:
                folders.add(folder)
                entry = tarfile.TarInfo(folder)
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def mat_bytes(variables: Mapping[str, Any]) -> bytes:
    """Return a .mat file."""
    buffer = io.BytesIO()
    savemat(buffer, dict(variables))
    return buffer.getvalue()


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def md5(content: bytes) -> str:
    """Return the MD5 in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def imagenet() -> dict[str, bytes]:
    """Return the three official files: 3 classes of 4 training pictures, 6 validation pictures."""
    train = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{i}.JPEG": jpeg(10 * place + i) for i in range(4)})
        for place, wnid in enumerate(WNIDS)
    }
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(100 + i) for i in range(1, 7)}
    # The ids of the development kit are not in the order of the WordNet ids; node 4 is an inner one.
    ids = {1: WNIDS[2], 2: WNIDS[0], 3: WNIDS[1], 4: "n00001740"}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    synsets = np.array([(i, wnid, "w", "g", 3 if i == 4 else 0) for i, wnid in ids.items()], dtype=kind)
    devkit = {
        "ILSVRC2012_devkit_t12/readme.txt": b"hello",
        "ILSVRC2012_devkit_t12/data/meta.mat": mat_bytes({"synsets": synsets.reshape(-1, 1)}),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n3\n3\n2\n1\n",
    }
    return {
        "ILSVRC2012_img_train.tar": tar_bytes(train),
        "ILSVRC2012_img_val.tar": tar_bytes(val),
        "ILSVRC2012_devkit_t12.tar.gz": tar_bytes(devkit, "w:gz"),
    }


IMAGENET_VAL = (WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[1], WNIDS[0], WNIDS[2])


def tiny_imagenet() -> dict[str, bytes]:
    """Return the zip: 3 classes of 3 training pictures, 4 of val, 2 of test, the tables of boxes beside."""
    top = "tiny-imagenet-200"
    files = {f"{top}/wnids.txt": "\n".join(WNIDS).encode(), f"{top}/words.txt": b"n01440764\ttench\n"}
    for place, wnid in enumerate(WNIDS):
        files[f"{top}/train/{wnid}/{wnid}_boxes.txt"] = b"n01440764_0.JPEG\t0\t0\t1\t1\n"
        files |= {f"{top}/train/{wnid}/images/{wnid}_{i}.JPEG": jpeg(200 + 10 * place + i) for i in range(3)}
    labels = (0, 1, 2, 1)
    rows = [f"val_{i}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62" for i, label in enumerate(labels)]
    files |= {f"{top}/val/images/val_{i}.JPEG": jpeg(300 + i) for i in range(4)}
    files[f"{top}/val/val_annotations.txt"] = ("\n".join(rows) + "\n").encode()
    files |= {f"{top}/test/images/test_{i}.JPEG": jpeg(400 + i) for i in range(2)}
    return {"tiny-imagenet-200.zip": zip_bytes(files)}


def mini_imagenet(is_disjoint: bool = True, num: int = 25) -> dict[str, bytes]:
    """Return three tables and the folder of pictures: 3 classes of `num`."""
    tables: dict[str, list[str]] = {split: ["filename,label"] for split in ("train", "val", "test")}
    pictures = {}
    for place, wnid in enumerate(WNIDS):
        for i in range(num):
            name = f"{wnid}{i:08}.jpg"
            pictures[f"images/{name}"] = jpeg(1000 * place + i)
            split = ("train", "val", "test")[place if is_disjoint else i % 3]
            tables[split].append(f"{name},{wnid}")
    return {f"{split}.csv": "\n".join(rows).encode() for split, rows in tables.items()} | pictures


def cub() -> dict[str, bytes]:
    """Return the archive: 2 species, 3 training and 3 test pictures."""
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    paths = [f"{label}/{label[4:]}_{i:04}.jpg" for label in classes for i in range(3)]
    is_train = (1, 0, 1, 0, 0, 1)
    lists = {
        "classes.txt": [f"{i} {label}" for i, label in enumerate(classes, 1)],
        "images.txt": [f"{i} {path}" for i, path in enumerate(paths, 1)],
        "train_test_split.txt": [f"{i} {flag}" for i, flag in enumerate(is_train, 1)],
    }
    files = {"attributes.txt": b"1 has_bill_shape::curved\n"}
    files |= {f"CUB_200_2011/images/{path}": jpeg(500 + i) for i, path in enumerate(paths)}
    # Behind the pictures, so that whoever reads in one go has nothing to go by.
    files |= {f"CUB_200_2011/{name}": ("\n".join(rows) + "\n").encode() for name, rows in lists.items()}
    return {"CUB_200_2011.tgz": tar_bytes(files, "w:gz")}


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def _structs(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> npt.NDArray[Any]:
    return np.array(rows, dtype=[(name, "O") for name in names]).reshape(1, -1)


def cars_one_archive() -> dict[str, bytes]:
    """Return car_ims.tgz and cars_annos.mat: 3 training and 2 test pictures of 2 classes."""
    names = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    places = ((1, 0), (2, 0), (1, 1), (2, 1), (1, 0))
    rows = [(f"car_ims/{i:06}.jpg", 1, 1, 9, 9, label, test) for i, (label, test) in enumerate(places, 1)]
    table = {"annotations": _structs(rows, names), "class_names": np.array(CARS, dtype=object).reshape(1, -1)}
    pictures = {f"car_ims/{i:06}.jpg": jpeg(600 + i) for i in range(1, 6)}
    return {"car_ims.tgz": tar_bytes(pictures, "w:gz"), "cars_annos.mat": mat_bytes(table)}


def cars_two_archives() -> dict[str, bytes]:
    """Return the same pictures as cars_train.tgz, cars_test.tgz, car_devkit.tgz and the labels of the test."""
    names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    train, test = ((1, 1), (2, 2), (1, 5)), ((1, 3), (2, 4))
    tables = {
        split: mat_bytes(
            {"annotations": _structs([(1, 1, 9, 9, row[0], f"{i:05}.jpg") for i, row in enumerate(rows, 1)], names)}
        )
        for split, rows in (("train", train), ("test", test))
    }
    meta = mat_bytes({"class_names": np.array(CARS, dtype=object).reshape(1, -1)})
    devkit = {"devkit/cars_meta.mat": meta, "devkit/cars_train_annos.mat": tables["train"]}
    return {
        "cars_train.tgz": tar_bytes({f"cars_train/{i:05}.jpg": jpeg(600 + n) for i, (_, n) in enumerate(train, 1)}),
        "cars_test.tgz": tar_bytes({f"cars_test/{i:05}.jpg": jpeg(600 + n) for i, (_, n) in enumerate(test, 1)}),
        "car_devkit.tgz": tar_bytes(devkit, "w:gz"),
        "cars_test_annos_withlabels.mat": tables["test"],
    }


def caltech101() -> dict[str, bytes]:
    """Return the zip with a packed tar inside: 2 classes of 5, 2 pictures of background."""
    top = "101_ObjectCategories"
    counts = {"BACKGROUND_Google": 2, "accordion": 5, "ant": 5}
    inner = {f"{top}/{label}/image_{i:04}.jpg": jpeg(700 + i) for label, n in counts.items() for i in range(1, n + 1)}
    inner[f"{top}/BACKGROUND_Google/tmp"] = b"no picture"
    files = {
        "caltech-101/101_ObjectCategories.tar.gz": tar_bytes(inner, "w:gz"),
        "caltech-101/Annotations.tar": tar_bytes({"Annotations/ant/annotation_0001.mat": b"x"}),
        "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"mac",
    }
    return {"caltech-101.zip": zip_bytes(files)}


def caltech256() -> dict[str, bytes]:
    """Return the tar: 2 classes of 5, 2 of clutter, and the leftovers that the real one has."""
    top = "256_ObjectCategories"
    counts = {"001.ak47": 5, "198.spider": 5, "257.clutter": 2}
    files = {
        f"{top}/{label}/{label[:3]}_{i:04}.jpg": jpeg(800 + i) for label, n in counts.items() for i in range(1, n + 1)
    }
    files |= {f"{top}/198.spider/RENAME2": b"#!/bin/sh\n", f"{top}/001.ak47/greg/vision309/x.jpg": jpeg(1)}
    return {"256_ObjectCategories.tar": tar_bytes(files)}


class Python2Pickler:
    """Writes what Python 2 wrote: protocol 2, strings as bytes, numpy arrays through their old names."""

    def dumps(self, value: Any) -> bytes:
        """Return the pickle of dicts, lists, numbers, bytes and arrays of bytes."""
        return b"\x80\x02" + self._put(value) + b"."

    def _put(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value
        if isinstance(value, bool):
            return b"I01\n" if value else b"I00\n"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self._put, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(self._put, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(self._put(k) + self._put(v) for k, v in value.items()) + b"u"
        if isinstance(value, np.ndarray):
            made = (
                b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + self._put((0,)) + self._put(b"b") + b"tR"
            )
            dtype = b"cnumpy\ndtype\n" + self._put((b"u1", 0, 1)) + b"R"
            dtype += (
                b"(" + self._put(3) + self._put(b"|") + b"NNN" + self._put(-1) + self._put(-1) + self._put(0) + b"tb"
            )
            state = b"(" + self._put(1) + self._put(value.shape) + dtype + b"I00\n" + self._put(value.tobytes()) + b"t"
            return made + state + b"b"
        raise TypeError(type(value))


def cifar_pixels(seed: int, num: int) -> npt.NDArray[np.uint8]:
    """Return rows as CIFAR has them: 1024 red, 1024 green, 1024 blue values."""
    return np.random.default_rng(seed).integers(0, 256, (num, 3072), dtype=np.uint8)


def cifar10(python: int = 2, **replaced: bytes) -> dict[str, bytes]:
    """Return the archive with 4 pictures in every batch; `replaced` are members of other content."""
    names = (b"airplane", b"automobile", b"bird", b"cat")
    dumps = Python2Pickler().dumps if python == 2 else lambda value: pickle.dumps(value, 2)
    files = {"batches.meta": dumps({b"label_names": list(names), b"num_vis": 3072}), "readme.html": b"<html>"}
    for place, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        batch = {
            b"batch_label": b"x",
            b"labels": [3, 0, 1, 2],
            b"data": cifar_pixels(place, 4),
            b"filenames": [b"a.png"],
        }
        files[name] = dumps(batch)
    files |= replaced
    return {"cifar-10-python.tar.gz": tar_bytes({f"cifar-10-batches-py/{k}": v for k, v in files.items()}, "w:gz")}


def cifar100() -> dict[str, bytes]:
    """Return the archive: 4 training and 4 test pictures."""
    dumps = Python2Pickler().dumps
    meta = {b"fine_label_names": [b"apple", b"maple_tree"], b"coarse_label_names": [b"fruit", b"trees"]}
    files = {"meta": dumps(meta), "file.txt~": b""}
    for place, name in enumerate(("train", "test")):
        batch = {b"fine_labels": [0, 1, 1, 0], b"coarse_labels": [0, 1, 1, 0], b"data": cifar_pixels(20 + place, 4)}
        files[name] = dumps(batch)
    return {"cifar-100-python.tar.gz": tar_bytes({f"cifar-100-python/{k}": v for k, v in files.items()}, "w:gz")}


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Return an array of bytes as MNIST's files hold it."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist() -> dict[str, bytes]:
    """Return the four files: a training picture of every class, two test pictures."""
    generator = np.random.default_rng(9)
    files = {}
    for name, labels in (("train", range(10)), ("t10k", (7, 2))):
        values = np.array(list(labels), dtype=np.uint8)
        pixels = generator.integers(0, 256, (len(values), 28, 28), dtype=np.uint8)
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels), mtime=0)
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(idx(values), mtime=0)
    return files


def flowers() -> dict[str, bytes]:
    """Return archive, labels and splits: 6 pictures of 2 classes, one each in train and val, the rest in test."""
    labels = (1, 2, 1, 2, 1, 2)
    return {
        "102flowers.tgz": tar_bytes({f"jpg/image_{i:05}.jpg": jpeg(900 + i) for i in range(1, 7)}, "w:gz"),
        "imagelabels.mat": mat_bytes({"labels": np.array([labels], dtype=np.uint8)}),
        "setid.mat": mat_bytes(
            {"trnid": np.array([[1, 2]]), "valid": np.array([[3, 4]]), "tstid": np.array([[5, 6]], dtype=np.uint16)}
        ),
    }


def pets() -> dict[str, bytes]:
    """Return archive and annotations: 2 breeds, a training and a test picture each."""
    names = ("Abyssinian_1", "Abyssinian_100", "american_bulldog_1", "american_bulldog_2")
    files = {f"images/{name}.jpg": jpeg(950 + i) for i, name in enumerate(names)}
    files["images/Abyssinian_100.mat"] = b"MATLAB"
    lists = {
        "annotations/list.txt": b"#Image CLASS-ID SPECIES BREED ID\n",
        "annotations/trainval.txt": b"Abyssinian_100 1 1 1\namerican_bulldog_1 2 2 1\n",
        "annotations/test.txt": b"Abyssinian_1 1 1 1\namerican_bulldog_2 2 2 1\n",
        "annotations/trimaps/._Abyssinian_1.png": b"mac",
    }
    return {"images.tar.gz": tar_bytes(files, "w:gz"), "annotations.tar.gz": tar_bytes(lists, "w:gz")}


def food() -> dict[str, bytes]:
    """Return the archive: 2 dishes, 2 training and 1 test picture each."""
    files = {}
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for place, dish in enumerate(("apple_pie", "baby_back_ribs")):
        for i in range(3):
            files[f"food-101/images/{dish}/{1000 + i}.jpg"] = jpeg(960 + 10 * place + i)
            lists["train" if i < 2 else "test"].append(f"{dish}/{1000 + i}")
    files |= {f"food-101/meta/{split}.txt": "\n".join(rows).encode() for split, rows in lists.items()}
    return {"food-101.tar.gz": tar_bytes(files, "w:gz")}


def aircraft() -> dict[str, bytes]:
    """Return the archive: 2 variants with a picture in every split."""
    top = "fgvc-aircraft-2013b/data"
    files, number = {}, 34309
    for split in ("train", "val", "test"):
        rows = []
        for variant in ("707-320", "F/A-18"):
            files[f"{top}/images/{number:07}.jpg"] = jpeg(number)
            rows.append(f"{number:07} {variant}")
            number += 1
        files[f"{top}/images_variant_{split}.txt"] = ("\n".join(rows) + "\n").encode()
    return {"fgvc-aircraft-2013b.tar.gz": tar_bytes(files, "w:gz")}
