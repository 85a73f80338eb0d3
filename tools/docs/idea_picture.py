"""docs/idea.svg, the picture of the README: why objects look smaller in testing, and what the workflow does about it.

The scene is drawn, so it is nobody's photograph. Every length in it is computed: the crops are those of the training
and test preprocessing, and the captions say the object's height in network pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fixres.resolution import Preprocess

PHOTO_WIDTH, PHOTO_HEIGHT = 320, 240
OBJECT_HEIGHT = 96
OBJECT_CENTRE = (172, 104)
TRAIN_SIZE, TEST_SIZE, CROP_RATIO = 96, 128, Preprocess.crop_ratio


@dataclass(frozen=True)
class View:
    """A square crop of the photograph, resized to `size` network pixels."""

    size: int
    left: float
    top: float
    side: float

    @property
    def scale(self) -> float:
        """Network pixels for each pixel of the photograph."""
        return self.size / self.side

    @property
    def object_height(self) -> float:
        """Height of the object in network pixels."""
        return OBJECT_HEIGHT * self.scale

    @property
    def object_top(self) -> float:
        """Distance from the upper edge of the view to the object in network pixels."""
        return (OBJECT_CENTRE[1] - OBJECT_HEIGHT / 2 - self.top) * self.scale


def centre_view(size: int) -> View:
    """Return the test-time view: the shorter side to resize_size, then the centre crop."""
    side = size * PHOTO_HEIGHT / Preprocess(size, CROP_RATIO).resize_size
    return View(size, (PHOTO_WIDTH - side) / 2, (PHOTO_HEIGHT - side) / 2, side)


def random_view() -> View:
    """Return a random crop that shows the object as large as the test-time view at the test size does."""
    side = TRAIN_SIZE / centre_view(TEST_SIZE).scale
    from_top = centre_view(TRAIN_SIZE).object_top + centre_view(TRAIN_SIZE).object_height / 2
    return View(TRAIN_SIZE, OBJECT_CENTRE[0] - 0.48 * side, OBJECT_CENTRE[1] - from_top * side / TRAIN_SIZE, side)


def scene() -> str:
    """Return the scene as an SVG 880 pixels wide that brings its own background for light and dark pages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("idea.svg.j2").render(
        photo=(PHOTO_WIDTH, PHOTO_HEIGHT),
        object_centre=OBJECT_CENTRE,
        object_height=OBJECT_HEIGHT,
        train=random_view(),
        same=centre_view(TRAIN_SIZE),
        larger=centre_view(TEST_SIZE),
    )
