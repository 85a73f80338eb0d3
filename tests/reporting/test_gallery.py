"""Pictures as the network sees them: the same pixels, in as many bytes as there are."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from fixres.config.recipe import Data
from fixres.data import transforms
from fixres.data.collections import open_collection
from fixres.reporting.gallery import NUM_PICTURES, data_uri, gallery, preprocess_of
from fixres.reporting.page import write_report
from fixres.reporting.run_record import read_run
from tests.support.report_pages import CLASSES, URI, Page, decode, fixed_events, write_run


def test_pictures_are_what_the_network_sees(run: Path) -> None:
    record = read_run(run)
    shown = gallery(record)
    assert shown.problem == ""
    assert [len(row.pictures) for row in shown.rows] == [NUM_PICTURES] * 3
    crops = [[decode(picture.uri) for picture in row.pictures] for row in shown.rows]
    assert [row[0].shape[-1] for row in crops] == [32, 32, 48]
    assert [row.pictures[0].width_percent for row in shown.rows] == [66.67, 66.67, 100]

    split = open_collection(Data(uri=URI)).split("test")
    for row, size in ((crops[1], 32), (crops[2], 48)):
        expected = [
            transforms.evaluation_crop(split.read(index), preprocess_of(record, size)) for index in range(len(split))
        ]
        assert all(any(torch.equal(crop, other) for other in expected) for crop in row)
    assert {picture.truth for picture in shown.rows[-1].pictures} == set(CLASSES)


def test_training_crops_leave_the_random_state_alone_and_repeat(run: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = gallery(read_run(run)), gallery(read_run(run))
    assert torch.equal(before, torch.get_rng_state())
    assert first == second


def test_predictions_stand_below_their_pictures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_events())
    split = open_collection(Data(uri=URI)).split("test")
    truth = CLASSES[int(split.labels[5])]
    wrong = next(name for name in CLASSES if name != truth)
    top = [{"name": wrong, "probability": 0.7}, {"name": truth, "probability": 0.3}]
    predictions = [{"path": str(split.paths[5]), "label": truth, "size": 48, "top": top}]
    (folder / "predictions.json").write_text(json.dumps(predictions))
    first = gallery(read_run(folder)).rows[-1].pictures[0]
    assert (first.truth, first.prediction, first.probability, first.is_right) == (truth, wrong, "70.0 %", False)
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert f"✗ {wrong}" in page.text
    assert re.search(r"1 prediction\b", page.text)


def test_pictures_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_events(), uri=f"folder:{tmp_path / 'moved away'}")
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "No pictures: they cannot be read any more" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "5.0 points more" in page.text


@pytest.mark.parametrize("size", [16, 224, 600])
def test_pictures_fit_what_a_page_has_for_them(size: int) -> None:
    noise = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for limit in (3_000, 40_000):
        content = base64.b64decode(data_uri(noise, limit).partition(",")[2])
        assert len(content) <= limit
        image = Image.open(io.BytesIO(content))
        assert image.width == image.height
        assert (image.format == "PNG") == (size == 16)
