"""Pages and pictures that `make docs` writes are those of the code."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tools.docs.idea_picture import PHOTO_HEIGHT, PHOTO_WIDTH, centre_view, random_view, scene
from tools.docs.network_page import network_page
from tools.docs.recipe_page import reference_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_page_is_up_to_date() -> None:
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == reference_page(), "run: make docs"


def test_the_page_about_the_network_is_made_from_the_table() -> None:
    assert (DOCS / "network.md").read_text(encoding="utf-8") == network_page(), "run: make docs"


def test_scene_is_true_to_the_preprocessing_and_up_to_date() -> None:
    train, same, larger = random_view(), centre_view(96), centre_view(128)
    assert train.object_height == pytest.approx(larger.object_height)
    assert same.object_height < 0.8 * train.object_height
    assert same.side == pytest.approx(larger.side, rel=0.01)
    for view in (train, same, larger):
        assert 0 <= view.left <= PHOTO_WIDTH - view.side
        assert 0 <= view.top <= PHOTO_HEIGHT - view.side
        assert 0 < view.object_top < view.size - view.object_height
    ElementTree.fromstring(scene())
    assert scene() == (DOCS / "idea.svg").read_text(encoding="utf-8"), "run: make docs"
