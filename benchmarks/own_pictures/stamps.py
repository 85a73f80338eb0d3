"""A small real collection: photographs of things on white, out of Debian's package tuxpaint-stamps-default.

    apt-get download tuxpaint-stamps-default
    dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.own_pictures.stamps stamps --out photos

The stamps of the drawing program Tux Paint (copyright 2002-2022 Bill Kendrick and others, GPL 2): its photographs of
animals, food, plants, coins, household things and vehicles, about 300. Drawings, vector pictures, mirror images and all
but one of equal pictures are left out; what is transparent becomes white, the same for every arm.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from fixres.errors import UserError

CLASSES = {
    "mammals": ("animals/mammals",),
    "birds": ("animals/birds",),
    "other animals": (
        "animals/amphibians",
        "animals/fish",
        "animals/insects",
        "animals/lizards",
        "animals/marsupials",
        "animals/shellfish",
    ),
    "food": ("food",),
    "plants": ("plants",),
    "coins": ("symbols/money/canadian", "symbols/money/euro", "symbols/money/japanese", "symbols/money/us"),
    "household": ("household",),
    "vehicles": ("vehicles", "military/vehicles"),
}
"""Class folders to write, and the folders of stamps each is made of."""
DRAWN = "cartoon"
"""Name of the folders that hold drawings."""


def photographs(stamps: Path) -> Iterator[tuple[str, Path]]:
    """Yield the class and the file of every photograph below the folder of stamps."""
    for name, folders in CLASSES.items():
        for folder in folders:
            for file in sorted((stamps / folder).rglob("*.png")):
                is_vector = file.with_suffix(".svg").exists()
                if DRAWN not in file.parts and not file.stem.endswith("_mirror") and not is_vector:
                    yield name, file


def write_photographs(root: Path, out: Path) -> dict[str, int]:
    """Write class folders of PNGs on white, and return how many pictures each has.

    Raises:
        UserError: there are no stamps below `root`, or something lies in `out`.
    """
    stamps = next((folder for folder in sorted(root.rglob("stamps")) if (folder / "animals").is_dir()), None)
    if stamps is None:
        raise UserError(f"no stamps below {root}\n  dpkg-deb -x tuxpaint-stamps-default_*.deb {root}")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty\n  give another --out")
    seen: set[bytes] = set()
    counts = dict.fromkeys(CLASSES, 0)
    for name, file in photographs(stamps):
        with Image.open(file) as picture:
            whole = picture.convert("RGBA")
        flat = Image.new("RGBA", whole.size, "white")
        flat.alpha_composite(whole)
        if flat.tobytes() in seen:
            continue
        seen.add(flat.tobytes())
        place = out / name / "-".join(file.relative_to(stamps).parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        flat.convert("RGB").save(place)
        counts[name] += 1
    return counts


def main() -> None:
    """Write the collection and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder the package was unpacked into")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    counts = write_photographs(asked.root, asked.out)
    print(f"{sum(counts.values())} pictures: {', '.join(f'{name} {count}' for name, count in counts.items())}")


if __name__ == "__main__":
    main()
