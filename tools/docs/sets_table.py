"""The table of docs/data.md: every data set that can be prepared."""

from __future__ import annotations

from fixres.data.prepare.known_sets import SETS
from fixres.data.prepare.parts import DataSet
from fixres.errors import counted

_HEAD = """\
| name | data set | pictures | classes | to fetch | licence | checksum | page |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def sets_table() -> str:
    """Return every data set as a row of Markdown."""
    return _HEAD + "\n".join(map(_row, SETS.values())) + "\n"


def _row(info: DataSet) -> str:
    counts = ", ".join(f"{split} {count:,}".strip() for split, count in info.counts.items())
    best = [info.files[key] for key in info.layouts[0]]
    size = sum(file.megabytes for file in best)
    fetch = "by hand" if not info.can_download else f"{size:,} MB"
    with_md5 = sum(bool(file.md5) for file in best)
    checksum = (
        "MD5"
        if with_md5 == len(best)
        else ("none published" if not with_md5 else f"MD5 of {counted(with_md5, 'file')}")
    )
    cells = (f"`{info.name}`", info.title, counts, f"{info.num_classes}", fetch, info.license, checksum, info.page)
    return f"| {' | '.join(cells)} |"
