"""The lab record on top of a recipe, and that shipped ones agree with the published tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixres.config.lab_record import LabRecord, read_record
from fixres.experiments.published_tables import TABLES
from tests.support.recipes import PUBLISHED_RECIPES, recipe_of


def test_a_record_is_the_first_comments_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "# What it is.\n#\n# Run:    torchrun --nproc-per-node 8 -m fixres train a\n"
        "# Expect: 77.0 % top-1\n#         at 224 px\n# and a remark.\nseed: 1\n# Cost: not on top\n"
    )
    assert read_record(path) == LabRecord(
        title="What it is.", run="torchrun --nproc-per-node 8 -m fixres train a", expect="77.0 % top-1 at 224 px"
    )
    assert (read_record(path).devices, LabRecord().devices) == (8, 1)


def test_every_row_of_a_table_has_its_recipe_and_every_recipe_its_row() -> None:
    rows = {(table.title, row.recipe) for table in TABLES for row in table.rows}
    titles = {table.title for table in TABLES}
    records = {name: read_record(path) for name, path in PUBLISHED_RECIPES.items()}
    # A recipe is a row of its own table; others may show it again, and some cells no recipe makes.
    assert rows >= {(record.table, name) for name, record in records.items() if record.table in titles}
    assert {name for _, name in rows} - {""} <= set(records)
    without = {record.table for record in records.values()} - titles
    assert without == {"Ascend: ResNet-50", "FixRes: contests", "ResNeXt-PyTorch: other data sets"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_what_a_recipe_expects_is_what_the_table_says(table: Any) -> None:
    for row in table.rows:
        if row.of == "each":
            continue
        expect = read_record(PUBLISHED_RECIPES[row.recipe]).expect
        values = [figure.top1 for figure in row.figures if figure.top1 is not None]
        values = [round(100 - v, 2) for v in values] if table.is_error else values
        shown = {f(value) for value in values for f in ("{:g}".format, "{:.1f}".format, "{:.2f}".format)}
        assert not values or any(text in expect for text in shown), row.label
        recipe = recipe_of(row.recipe)
        measured = {0, *recipe.evaluation.sizes, *(stage.size for stage in recipe.run_stages)}
        assert {figure.size for figure in row.figures} <= measured
