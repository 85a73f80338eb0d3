"""The user's archives: what is missing is named, with where to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.data.prepare.official_archives import download
from fixres.data.prepare.writer import prepare
from fixres.errors import UserError


def test_missing_archives_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    with pytest.raises(UserError, match=r"(?s)CUB_200_2011.tgz \(or CUB_200_2011.*fixres data download cub-200-2011"):
        prepare("cub", tmp_path / "from", tmp_path / "out")
    with pytest.raises(UserError, match=r"(?s)car_ims.tgz .*or: cars_train.tgz.*cyizhuo"):
        prepare("cars", tmp_path / "from", tmp_path / "out")
    with pytest.raises(UserError, match="there is no folder"):
        prepare("cars", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"(?s)cannot be fetched for you.*account.*fixres data prepare imagenet"):
        download("imagenet", tmp_path / "d")
