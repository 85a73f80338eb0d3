"""Archives of every kind read the same; what is damaged or means harm is refused."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.errors import UserError
from fixres.io import archives
from tests.support import archive_makers as made


def evil_tar(name: str, kind: bytes = tarfile.REGTYPE, target: str = "/etc/passwd") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        tar.addfile(entry)
    return buffer.getvalue()


def evil_zip(name: str, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        packed.writestr(entry, "x")
    return buffer.getvalue()


NOISE = random.Random(0).randbytes(5000)
STORED = made.zip_bytes({"a.jpg": NOISE})
HARM: dict[str, tuple[bytes, str]] = {
    "upwards": (evil_tar("../../evil.jpg"), "leads out of it"),
    "absolute": (evil_tar("/tmp/evil.jpg"), "leads out of it"),
    "upwards inside": (evil_tar("a/../../evil.jpg"), "leads out of it"),
    "backslash": (evil_tar("images\\..\\evil.jpg"), "leads out of it"),
    "symbolic link": (evil_tar("images/a.jpg", tarfile.SYMTYPE), "holds a link"),
    "hard link": (evil_tar("images/a.jpg", tarfile.LNKTYPE), "holds a link"),
    "pipe": (evil_tar("images/a.jpg", tarfile.FIFOTYPE), "holds a device"),
    "zip upwards": (evil_zip("../evil.jpg"), "leads out of it"),
    "zip drive": (evil_zip("C:/evil.jpg"), "leads out of it"),
    "zip link": (evil_zip("a.jpg", 0o120777), "holds a link"),
    "web page": (b"<!DOCTYPE html><html>Please log in</html>", "is a web page"),
    "no archive": (b"not an archive at all" * 40, "damaged or cut short"),
    "empty": (b"", "damaged or cut short"),
    "tar cut in a member": (made.tar_bytes({"a.jpg": NOISE})[:3000], "damaged or cut short"),
    "gzip cut": (made.tar_bytes({"a.jpg": NOISE}, "w:gz")[:-2000], "damaged or cut short"),
    "rubbish in a tar": (made.tar_bytes({"a.jpg": b"x"})[:1024] + b"rubbish" * 200, "damaged or cut short"),
    "tar cut in a header": (made.tar_bytes({"a.jpg": b"x", "b.jpg": b"y"})[:1500], "damaged or cut short"),
    "zip cut": (STORED[:-30], "damaged or cut short"),
    "zip with a byte changed": (STORED.replace(NOISE[100:120], NOISE[99:119]), "damaged or cut short"),
}


def read_all(path: Path) -> list[bytes]:
    return [member.read() for member in archives.members(path)]


@pytest.mark.parametrize("harm", HARM)
def test_an_archive_that_is_damaged_or_means_harm(harm: str, tmp_path: Path) -> None:
    content, message = HARM[harm]
    path = tmp_path / "sub" / "archive"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_all(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["sub", "archive"]


def test_a_member_that_claims_to_be_huge_is_not_believed(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.size = 2**40
    (tmp_path / "a.tar").write_bytes(entry.tobuf() + b"x" * 1024)
    with pytest.raises(UserError, match="at most 268435456 are read"):
        next(archives.members(tmp_path / "a.tar")).read()


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}", fullmatch=True), st.binary(max_size=2000))))
@settings(deadline=None)  # a busy disk is no fault
def test_every_kind_of_archive_reads_the_same(rows: list[tuple[str, bytes]]) -> None:
    files = dict(rows)
    for content in (made.tar_bytes(files), made.tar_bytes(files, "w:gz"), made.zip_bytes(files)):
        if files:
            found = {member.name: member.read() for member in archives.members_of(io.BytesIO(content), "it")}
            assert found == files
