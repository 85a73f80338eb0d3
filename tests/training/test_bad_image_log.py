"""Pictures that training left out are told once, and too many end the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.training.bad_image_log import BadImageLog
from tests.support.run_contexts import make_context


def test_bad_pictures_are_told_once_and_too_many_end_the_run(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    context = make_context(make_recipe(data={"on_bad_image": "skip", "max_bad_images": 0.0}), tmp_path)
    log, told = BadImageLog(context), context.log.events  # type: ignore[attr-defined]
    log.own += ["a.jpg", "b.jpg"]
    assert log.has_news
    log.tell()
    assert not log.has_news
    log.tell()
    log.own += ["a.jpg", "c.jpg"]
    log.tell()
    found: list[Any] = [(e["num_bad_images"], e["paths"]) for e in told]
    assert found == [(2, ["a.jpg", "b.jpg"]), (3, ["c.jpg"])]
    # Ten may be left out, however small the share.
    log.own += [f"{number}.jpg" for number in range(8)]
    with pytest.raises(UserError, match=r"11 pictures of 'train' cannot be read, and 10 of its 48 may be left out"):
        log.tell()
