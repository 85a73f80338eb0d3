"""The fine-grained sets and Food-101, as `known_sets` has the others."""

from __future__ import annotations

from fixres.data.prepare.cars import read_cars
from fixres.data.prepare.listed import read_aircraft, read_cub, read_flowers, read_food, read_pets
from fixres.data.prepare.parts import CALTECH, NONE_STATED, RESEARCH, DataSet, SourceFile

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/"
_READY = {
    "ready_train": SourceFile(("train",)),
    "ready_test": SourceFile(("test",)),
}


def fine_grained() -> tuple[DataSet, ...]:
    """Return CUB, Cars, Flowers, Pets, Aircraft and Food-101."""
    return (_cub(), _cars(), _flowers(), _pets(), _aircraft(), _food())


def _cub() -> DataSet:
    url = f"{CALTECH}65de6-vp158/files/CUB_200_2011.tgz"
    archive = SourceFile(
        ("CUB_200_2011.tgz", "CUB_200_2011", "CUB_200_2011.tar.gz"), "97eceeb196236b17998738112f37df78", url, 1_151
    )
    return DataSet(
        name="cub-200-2011",
        title="Caltech-UCSD Birds-200-2011",
        read=read_cub,
        files={"archive": archive, **_READY},
        layouts=(("archive",), ("ready_train", "ready_test")),
        counts={"train": 5_994, "test": 5_794},
        num_classes=200,
        license=RESEARCH,
        page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        aliases=("cub", "cub200"),
    )


def _cars() -> DataSet:
    return DataSet(
        name="stanford-cars",
        title="Stanford Cars",
        read=read_cars,
        files={
            "images": SourceFile(("car_ims.tgz", "car_ims"), "d5c8f0aa497503f355e17dc7886c3f14", "", 1_957),
            "annos": SourceFile(("cars_annos.mat",), "b407c6086d669747186bd1d764ff9dbc", "", 1, False),
            "train": SourceFile(("cars_train.tgz", "cars_train")),
            "test": SourceFile(("cars_test.tgz", "cars_test")),
            "devkit": SourceFile(("car_devkit.tgz", "devkit"), is_picture_archive=False),
            "labels": SourceFile(("cars_test_annos_withlabels.mat",), is_picture_archive=False),
            **_READY,
        },
        layouts=(
            ("images", "annos"),
            ("train", "test", "devkit", "labels"),
            ("train", "test", "devkit"),
            ("ready_train", "ready_test"),
        ),
        counts={"train": 8_144, "test": 8_041},
        num_classes=196,
        license=RESEARCH,
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        aliases=("cars", "cars196"),
        how_to_get="its own address is gone; copies are at https://www.kaggle.com/datasets (an account) and, divided "
        "into train and test already, at https://github.com/cyizhuo/Stanford-Cars-dataset (git clone)",
    )


def _flowers() -> DataSet:
    return DataSet(
        name="flowers102",
        title="Oxford 102 Flowers",
        read=read_flowers,
        files={
            "archive": SourceFile(
                ("102flowers.tgz", "jpg"),
                "52808999861908f626f3c1f4e79d11fa",
                f"{_OXFORD}flowers/102/102flowers.tgz",
                345,
            ),
            "labels": SourceFile(
                ("imagelabels.mat",),
                "e0620be6f572b9609742df49c70aed4d",
                f"{_OXFORD}flowers/102/imagelabels.mat",
                1,
                is_picture_archive=False,
            ),
            "splits": SourceFile(
                ("setid.mat",),
                "a5357ecc9cb78c4bef273ce3793fc85c",
                f"{_OXFORD}flowers/102/setid.mat",
                1,
                is_picture_archive=False,
            ),
        },
        layouts=(("archive", "labels", "splits"),),
        counts={"train": 1_020, "val": 1_020, "test": 6_149},
        num_classes=102,
        license=NONE_STATED,
        page=f"{_OXFORD}flowers/102/",
        aliases=("flowers", "oxford-flowers"),
    )


def _pets() -> DataSet:
    return DataSet(
        name="oxford-pets",
        title="Oxford-IIIT Pets",
        read=read_pets,
        files={
            "archive": SourceFile(
                ("images.tar.gz", "images"),
                "5c4f3ee8e5d25df40f4fd59a7f44e54c",
                f"{_OXFORD}pets/data/images.tar.gz",
                792,
            ),
            "annotations": SourceFile(
                ("annotations.tar.gz", "annotations"),
                "95a8c909bbe2e81eed6a22bccdf3f68f",
                f"{_OXFORD}pets/data/annotations.tar.gz",
                19,
                is_picture_archive=False,
            ),
        },
        layouts=(("archive", "annotations"),),
        counts={"train": 3_680, "test": 3_669},
        num_classes=37,
        license="CC BY-SA 4.0",
        page=f"{_OXFORD}pets/",
        aliases=("pets", "oxford-iiit-pets", "oxford-iiit-pet"),
    )


def _aircraft() -> DataSet:
    return DataSet(
        name="fgvc-aircraft",
        title="FGVC-Aircraft (variants)",
        read=read_aircraft,
        files={
            "archive": SourceFile(
                ("fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b"),
                "d4acdd33327262359767eeaa97a4f732",
                f"{_OXFORD}fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                2_753,
            )
        },
        layouts=(("archive",),),
        counts={"train": 3_334, "val": 3_333, "test": 3_333},
        num_classes=100,
        license="non-commercial research only",
        page=f"{_OXFORD}fgvc-aircraft/",
        aliases=("aircraft",),
    )


def _food() -> DataSet:
    return DataSet(
        name="food101",
        title="Food-101",
        read=read_food,
        files={
            "archive": SourceFile(
                ("food-101.tar.gz", "food-101"),
                "85eeb15f3717b99a5da872d97d918f87",
                "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                4_996,
            )
        },
        layouts=(("archive",),),
        counts={"train": 75_750, "test": 25_250},
        num_classes=101,
        license=f"{NONE_STATED}; the pictures are Foodspotting's, scientific fair use only",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        aliases=("food-101",),
    )
