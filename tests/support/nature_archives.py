"""Miniature copies of the archives of birds and other living things, in the layouts their pages describe."""

from __future__ import annotations

import json

from tests.support.archive_makers import jpeg, tar_bytes, zip_bytes


def nabirds() -> dict[str, bytes]:
    """Return the archive: 2 classes of the lowest level, 3 training and 3 test pictures, and a class above them."""
    places = [("817", "a1b2-01"), ("817", "a1b2-02"), ("1010", "a1b2-03"), ("1010", "a1b2-04"), ("817", "a1b2-05")]
    places.append(("1010", "a1b2-06"))
    rows = {
        "classes.txt": ["0 Birds", "817 Oak Titmouse", "1010 Common Eider (Female/juvenile)"],
        "images.txt": [f"{number} {label:0>4}/{number.replace('-', '')}.jpg" for label, number in places],
        "image_class_labels.txt": [f"{number} {label}" for label, number in places],
        "train_test_split.txt": [f"{number} {i % 2}" for i, (_, number) in enumerate(places)],
        "hierarchy.txt": ["817 0", "1010 0"],
    }
    files = {f"nabirds/{name}": ("\n".join(lines) + "\n").encode() for name, lines in rows.items()}
    files |= {f"nabirds/images/{line.split()[1]}": jpeg(900 + i) for i, line in enumerate(rows["images.txt"])}
    return {"nabirds.tar.gz": tar_bytes(files, "w:gz")}


def birdsnap() -> dict[str, bytes]:
    """Return the tables and the folder that get_birdsnap.py fills: 4 training and 2 test pictures."""
    paths = [f"{label}/{i}.jpg" for label in ("Acadian_Flycatcher", "Blue_Jay") for i in (11, 12, 13)]
    rows = [f"http://example.org/{i}\t0\t{path}\t{1 + i // 3}\t1" for i, path in enumerate(paths)]
    return {
        "images.txt": "\n".join(["url\tmd5\tpath\tspecies_id\tbb_x1", *rows, ""]).encode(),
        "test_images.txt": "\n".join(["path", paths[1], paths[5], ""]).encode(),
        "species.txt": b"id\tcommon\tscientific\tdir\n1\tAcadian Flycatcher\tE. virescens\tAcadian_Flycatcher\n",
        **{f"download/images/{path}": jpeg(920 + i) for i, path in enumerate(paths)},
    }


def _inat(year: int, root: str, seed: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the pictures, and the tables of train and val, of a competition."""
    classes = {3: ("Aves", "Corvus corax"), 17: ("Plantae", "Rosa canina")}
    pictures: dict[str, bytes] = {}
    tables = {}
    for split, num in (("train", 2), ("val", 1)):
        images, annotations = [], []
        for label, (above, name) in classes.items():
            for i in range(num):
                number = len(pictures)
                place = f"{root}/{above}/{name}/{split}{i}.jpg"
                pictures[place] = jpeg(seed + number)
                images.append({"id": number, "file_name": place, "width": 16, "height": 12})
                annotations.append({"id": number, "image_id": number, "category_id": label})
        categories = [{"id": label, "name": name, "supercategory": above} for label, (above, name) in classes.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        tables[f"{split}{year}.json"] = json.dumps(content).encode()
    return pictures, tables


def inat2017() -> dict[str, bytes]:
    """Return the pictures and the zip of tables: 2 classes, 4 training and 2 validation pictures."""
    pictures, tables = _inat(2017, "train_val_images", 940)
    return {"train_val_images.tar.gz": tar_bytes(pictures, "w:gz"), "train_val2017.zip": zip_bytes(tables)}


def inat2019() -> dict[str, bytes]:
    """Return the pictures and the two packed tables: 2 classes, 4 training and 2 validation pictures."""
    pictures, tables = _inat(2019, "train_val2019", 960)
    packed = {f"{name}.tar.gz": tar_bytes({name: content}, "w:gz") for name, content in tables.items()}
    return {"train_val2019.tar.gz": tar_bytes(pictures, "w:gz"), **packed}
