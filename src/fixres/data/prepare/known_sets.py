"""Every data set by name: its files, published checksums and counts, licence and page. Facts, no rules.

Checksums: those torchvision checks (CIFAR, MNIST, Fashion-MNIST, Caltech, ImageNet, Flowers, Pets, Food-101), those
on the data sets' own pages (FGVC-Aircraft), or, where neither has one (CUB-200-2011, Tiny-ImageNet, the first layout of
Stanford Cars), those which independent projects agree on.
"""

from __future__ import annotations

from fixres.data.prepare.arrays import read_cifar10, read_cifar100, read_fashion, read_mnist
from fixres.data.prepare.caltech import read_caltech
from fixres.data.prepare.fine_grained import fine_grained
from fixres.data.prepare.imagenet import read_imagenet, read_mini, read_tiny
from fixres.data.prepare.parts import CALTECH, NONE_STATED, RESEARCH, DataSet, SourceFile
from fixres.errors import UserError, did_you_mean

_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_MNIST_HOST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_HOST = "https://fashion-mnist.s3.eu-central-1.amazonaws.com/"


def _imagenet() -> DataSet:
    train = SourceFile(
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_train"), "1d675b47d978889d74fa0da5fadfb00e", "", 147_897
    )
    val = SourceFile(("ILSVRC2012_img_val.tar", "ILSVRC2012_img_val"), "29b22e2961454d5413ddabcf34fc5622", "", 6_745)
    devkit = SourceFile(
        ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"), "fa75699e90414af021442c21a62c3abf", "", 3, False
    )
    return DataSet(
        name="imagenet",
        title="ImageNet-1k (ILSVRC 2012)",
        read=read_imagenet,
        files={
            "train": train,
            "val": val,
            "solution": SourceFile(("LOC_val_solution.csv",), is_picture_archive=False),
            "names": SourceFile(("val_map.txt", "val_labels.txt"), is_picture_archive=False),
            "devkit": devkit,
            "meta": SourceFile(("meta.mat",), is_picture_archive=False),
            "truth": SourceFile(("ILSVRC2012_validation_ground_truth.txt",), is_picture_archive=False),
        },
        layouts=(
            ("train", "val", "devkit"),
            ("train", "val", "meta", "truth"),
            ("train", "val", "solution"),
            ("train", "val", "names"),
        ),
        partial_layouts=(
            ("val", "devkit"),
            ("val", "meta", "truth"),
            ("val", "solution"),
            ("val", "names"),
            ("train",),
        ),
        counts={"train": 1_281_167, "val": 50_000},
        num_classes=1000,
        license=f"{RESEARCH} (terms of image-net.org)",
        page="https://image-net.org/download.php",
        aliases=("imagenet-1k", "ilsvrc2012"),
        how_to_get="log in at https://image-net.org (an account, and agreement to its terms) and fetch the three files",
    )


def _tiny() -> DataSet:
    url = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
    return DataSet(
        name="tiny-imagenet-200",
        title="Tiny-ImageNet-200",
        read=read_tiny,
        files={
            "archive": SourceFile(
                ("tiny-imagenet-200.zip", "tiny-imagenet-200"), "90528d7ca1a48142e341f4ef8d21d0de", url, 248
            )
        },
        layouts=(("archive",),),
        counts={"train": 100_000, "val": 10_000},
        num_classes=200,
        license=f"{NONE_STATED}; the pictures are ImageNet's",
        page="https://cs231n.stanford.edu/",
        aliases=("tiny-imagenet",),
    )


def _mini() -> DataSet:
    tables = {
        "train": SourceFile(("train.csv",), is_picture_archive=False),
        "val": SourceFile(("val.csv", "valid.csv", "validation.csv"), is_picture_archive=False),
        "test": SourceFile(("test.csv",), is_picture_archive=False),
    }
    return DataSet(
        name="mini-imagenet",
        title="mini-ImageNet",
        read=read_mini,
        files={**tables, "images": SourceFile(("images.zip", "images.tar", "images.tar.gz", "images"))},
        layouts=(("train", "val", "test", "images"),),
        counts={"train": 38_400, "val": 9_600, "test": 12_000},
        num_classes=100,
        license=f"{NONE_STATED}; the pictures are ImageNet's",
        page="https://arxiv.org/abs/1606.04080",
        how_to_get="it has no official address; several research groups share the three tables and the pictures",
    )


def _caltech() -> tuple[DataSet, DataSet]:
    small = DataSet(
        name="caltech101",
        title="Caltech-101",
        read=read_caltech,
        files={
            "archive": SourceFile(
                ("caltech-101.zip", "101_ObjectCategories.tar.gz", "caltech-101", "101_ObjectCategories"),
                "3138e1922a9193bfa496528edbbc45d0",
                f"{CALTECH}mzrjq-6wc02/files/caltech-101.zip",
                137,
            )
        },
        layouts=(("archive",),),
        counts={"": 8_677},
        num_classes=101,
        license="CC BY 4.0",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
        aliases=("caltech-101",),
        background=("BACKGROUND_Google", 467),
    )
    large = DataSet(
        name="caltech256",
        title="Caltech-256",
        read=read_caltech,
        files={
            "archive": SourceFile(
                ("256_ObjectCategories.tar", "256_ObjectCategories"),
                "67b4f42ca05d46448c6bb8ecd2220f6d",
                f"{CALTECH}nyy15-4j048/files/256_ObjectCategories.tar",
                1_183,
            )
        },
        layouts=(("archive",),),
        counts={"": 29_780},
        num_classes=256,
        license="CC BY 4.0",
        page="https://data.caltech.edu/records/nyy15-4j048",
        aliases=("caltech-256",),
        background=("257.clutter", 827),
    )
    return small, large


def _cifar() -> tuple[DataSet, DataSet]:
    rows = (
        ("10", read_cifar10, "cifar-10-batches-py", "c58f30108f718f92721af3b95e74349a", 170),
        ("100", read_cifar100, "cifar-100-python", "eb9058c3a382ffc7106e4002c42a8d85", 169),
    )
    ten, hundred = (
        DataSet(
            name=f"cifar{number}",
            title=f"CIFAR-{number}",
            read=read,
            files={
                "archive": SourceFile(
                    (f"cifar-{number}-python.tar.gz", folder), md5, f"{_TORONTO}cifar-{number}-python.tar.gz", size
                )
            },
            layouts=(("archive",),),
            counts={"train": 50_000, "test": 10_000},
            num_classes=int(number),
            license=NONE_STATED,
            page=f"{_TORONTO}cifar.html",
            aliases=(f"cifar-{number}",),
        )
        for number, read, folder, md5, size in rows
    )
    return ten, hundred


def _idx_files(host: str, md5s: tuple[str, str, str, str], sizes: tuple[int, int]) -> dict[str, SourceFile]:
    rows = (
        ("train_images", "train-images-idx3-ubyte", sizes[0]),
        ("train_labels", "train-labels-idx1-ubyte", 1),
        ("test_images", "t10k-images-idx3-ubyte", sizes[1]),
        ("test_labels", "t10k-labels-idx1-ubyte", 1),
    )
    return {
        key: SourceFile((f"{name}.gz", name), md5, f"{host}{name}.gz", size, key.endswith("images"))
        for (key, name, size), md5 in zip(rows, md5s, strict=True)
    }


def _mnist() -> tuple[DataSet, DataSet]:
    digits = (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )
    clothes = (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )
    layout = (("train_images", "train_labels", "test_images", "test_labels"),)
    counts = {"train": 60_000, "test": 10_000}
    return (
        DataSet(
            name="mnist",
            title="MNIST",
            read=read_mnist,
            files=_idx_files(_MNIST_HOST, digits, (10, 2)),
            layouts=layout,
            counts=counts,
            num_classes=10,
            license=NONE_STATED,
            page="https://yann.lecun.org/exdb/mnist/",
        ),
        DataSet(
            name="fashion-mnist",
            title="Fashion-MNIST",
            read=read_fashion,
            files=_idx_files(_FASHION_HOST, clothes, (26, 4)),
            layouts=layout,
            counts=counts,
            num_classes=10,
            license="MIT",
            page="https://github.com/zalandoresearch/fashion-mnist",
        ),
    )


SETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        _imagenet(),
        _tiny(),
        _mini(),
        *_caltech(),
        *_cifar(),
        *_mnist(),
        *fine_grained(),
    )
}
"""Every data set that can be prepared, by name."""


def find_set(name: str) -> DataSet:
    """Return the data set called `name`; case, '-' and '_' do not matter.

    Raises:
        UserError: there is none; lists those there are.
    """
    folded = {_fold(known): entry for entry in SETS.values() for known in (entry.name, *entry.aliases)}
    if _fold(name) in folded:
        return folded[_fold(name)]
    names = [known for entry in SETS.values() for known in (entry.name, *entry.aliases)]
    raise UserError(
        f"no data set is called '{name}'{did_you_mean(name, names)}\n"
        f"  allowed: {', '.join(SETS)}\n  your own pictures need no preparing: --data.uri folder:DIR"
    )


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")
