"""The JSON of a report says what its page says."""

from __future__ import annotations

import json
from pathlib import Path

from fixres.cli.commands.report import report
from tests.support.report_pages import SIZES, Page, fixed_events


def test_the_json_says_what_the_page_says(answered_run: Path, tmp_path: Path) -> None:
    events = fixed_events()
    for event in events:
        if event["event"] == "train":
            event["loss"] = float("nan")
    (answered_run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert report([str(answered_run), "--out", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json")]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)["runs"][0]
    page = Page(tmp_path / "r.html")
    assert found["headline"]["sentence"] in page.text.replace("\u00a0", " ")
    assert found["comparison"]["paired"]["difference"] == 5.0
    assert [row["top1"] for row in found["comparison"]["rows"]] == [80.0, 83.0, 85.0]
    assert [r["size"] for r in found["accuracy_against_size"]["fixed"]] == list(SIZES)
    assert found["confusion"]["matrix"][2] == [3, 0, 7, 0]
    assert len(found["mistakes"]["hardest"]) == 12
    assert found["recipe"]["train"]["size"] == 32
    assert found["environment"]["versions"] == {"torch": "2.15.0"}
    for command in found["commands"]:
        assert command["line"].startswith("fixres ")
        assert command["line"] in page.text
