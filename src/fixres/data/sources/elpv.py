"""`elpv:` - 2,624 electroluminescence photographs of solar cells, read where the package elpv-dataset keeps them.

Buerhop-Lutz et al. 2018; Deitsch et al. 2019. Pictures under CC BY-NC-SA 4.0. A cell counts as defective from a
defect probability of 0.5 on; the subgroup is the cell type, mono- or polycrystalline.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from fixres.config.recipe import Data
from fixres.data.sources.folder import Files
from fixres.data.sources.uri import Scheme
from fixres.data.splits import Names, Split
from fixres.errors import UserError, require_extra

CLASSES = ("functional", "defective")


def open_elpv(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    """Return the URI, `{"all": ...}` and no notes.

    Raises:
        UserError: the package is missing or damaged, or something follows `elpv:`.
    """
    if body:
        raise UserError(f"elpv:{body} - the collection elpv: has no settings\n  --data.uri elpv:")
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise require_extra("elpv-dataset", "demo")
    # The package's own loader decodes all pictures at once; its table is read directly.
    root = Path(spec.origin).parent / "data"
    try:
        rows = [line.split() for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
        labels = np.array([float(probability) >= 0.5 for _, probability, _ in rows], dtype=np.int64)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the package elpv-dataset is damaged ({error})\n  pip install --force-reinstall elpv-dataset"
        ) from None
    paths, kinds = Names(path for path, _, _ in rows), Names(kind for _, _, kind in rows)
    return "elpv:", {"all": Split("all", CLASSES, labels, paths, Files(root), data.exif, data.alpha, kinds)}, []


SCHEME = Scheme("elpv", "elpv:", "photographs of solar cells, from the package elpv-dataset", open_elpv)
