"""Files of rows that are gone on with: whatever was cut off, in the end they are as if written at once."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.errors import UserError
from fixres.io.resumable_table import Style, Unfinished, no_longer_asked

PATHS = ["a.jpg", 'quoted "b".jpg', "line\nbreak.jpg", "comma,.jpg", "caf\u00e9.jpg", "f.jpg", "g.jpg"]
FAILED = {1: "not a picture", 5: "cut short"}
STYLES: list[Style] = ["jsonl", "csv"]


def written(style: Style, header: bool = True, first: int = 0) -> bytes:
    """Return the rows of all pictures from one on."""
    if style == "jsonl":
        errors = [{"error": FAILED[k]} if k in FAILED else {"class": "cat"} for k in range(len(PATHS))]
        return b"".join(json.dumps({"path": PATHS[k], **errors[k]}).encode() + b"\n" for k in range(first, len(PATHS)))
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    if header:
        rows.writerow(["path", "class", "error"])
    rows.writerows([PATHS[k], "" if k in FAILED else "cat", FAILED.get(k, "")] for k in range(first, len(PATHS)))
    return text.getvalue().encode()


def begun(folder: Path, style: Style, content: bytes) -> Unfinished:
    rows = Unfinished(folder / "out", style)
    rows.begin({"size": 64, "network": "abc"})
    rows.part.write_bytes(content)
    return rows


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(STYLES), st.floats(0, 1), st.integers(1, 4))
def test_cut_anywhere_it_goes_on_after_its_last_complete_batch(style: Style, share: float, batch_size: int) -> None:
    whole = written(style)
    with tempfile.TemporaryDirectory() as name:
        rows = begun(Path(name), style, whole[: round(share * len(whole))])
        pictures = iter(PATHS)
        num_kept, num_failed = rows.keep(pictures, batch_size)
        ends = [len(whole) - len(written(style, header=False, first=k)) for k in range(1, len(PATHS) + 1)]
        num_whole = sum(end <= round(share * len(whole)) for end in ends)
        assert num_kept == num_whole // batch_size * batch_size
        assert list(pictures) == PATHS[num_kept:]
        assert num_failed == sum(k < num_kept for k in FAILED)
        with rows.part.open("ab") as file:
            file.write(written(style, header=file.tell() == 0, first=num_kept))
        rows.finish()
        assert rows.out.read_bytes() == whole
        assert [path.name for path in rows.out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([PATHS[0], "other.jpg", *PATHS[2:]], 'row 2 of .*out.part is of quoted "b".jpg, the list has other.jpg there'),
        (PATHS[:1], "row 2 of .* the list is shorter"),
    ],
)
def test_rows_of_other_pictures_are_not_gone_on_with(
    tmp_path: Path, style: Style, pictures: list[str], said: str
) -> None:
    rows = begun(tmp_path, style, written(style))
    with pytest.raises(UserError, match=said):
        rows.keep(iter(pictures), 1)
    assert rows.part.read_bytes() == written(style)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"size": 96, "network": "abc"}, r"out\.part was made with size 64, asked for is 96\n  ask for the same"),
        ({"size": 64, "network": "xyz"}, r"out\.part was made with other weights\n"),
        ({"size": 64, "network": "abc", "top_k": 5}, "made with top k None, asked for is 5"),
    ],
)
def test_rows_that_were_made_otherwise_are_not_gone_on_with(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    rows = begun(tmp_path, "jsonl", b"")
    rows.require_same({"size": 64, "network": "abc"})
    with pytest.raises(UserError, match=said):
        rows.require_same(asked)
    rows.sheet.write_text("{")
    with pytest.raises(UserError, match="made with size None"):
        rows.require_same({"size": 64})


def test_beginning_anew_drops_what_was_there(tmp_path: Path) -> None:
    rows = Unfinished(tmp_path / "out", "jsonl")
    assert not rows.exists()
    rows.part.write_bytes(written("jsonl"))
    # Nothing says how these rows were made.
    assert not rows.exists()
    rows.begin({"size": 32})
    assert not rows.part.exists()
    assert json.loads(rows.sheet.read_text()) == {"size": 32}


@pytest.mark.parametrize("style", STYLES)
def test_rows_that_would_be_lost_are_counted(tmp_path: Path, style: Style) -> None:
    rows = begun(tmp_path, style, written(style)[:-1])
    assert f"{rows.part} holds 6 rows of an unfinished run\n  --resume goes on with it" in str(no_longer_asked(rows))
