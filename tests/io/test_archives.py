"""Archives of every kind read the same; what is damaged or means harm is refused."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
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


def inside(content: bytes) -> archives.Member:
    """An archive in a folder of archives."""
    return archives.Member("archives", "it", len(content), lambda: io.BytesIO(content))


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
    entry.size = 2**29
    (tmp_path / "a.tar").write_bytes(entry.tobuf() + b"x" * 1024)
    with pytest.raises(UserError, match="at most 268435456 are read"):
        next(archives.members(tmp_path / "a.tar")).read()


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}", fullmatch=True), st.binary(max_size=2000))))
@settings(deadline=None)  # a busy disk is no fault
def test_every_kind_of_archive_reads_the_same(rows: list[tuple[str, bytes]]) -> None:
    files = dict(rows)
    for content in (made.tar_bytes(files), made.tar_bytes(files, "w:gz"), made.zip_bytes(files)):
        if files:
            found = {member.name: member.read() for member in inside(content).members()}
            assert found == files


def zeros(kind: str, num_files: int, num_bytes: int) -> bytes:
    """An archive of files of zeros, which packs a thousandfold."""
    rows = {f"{k}.jpg": bytes(num_bytes) for k in range(num_files)}
    return made.zip_bytes(rows) if kind == "zip" else made.tar_bytes(rows, f"w:{kind}")


def sparse_tar(num_files: int, num_bytes: int) -> bytes:
    """A tar that is not packed, whose files are holes."""
    blocks = []
    for k in range(num_files):
        entry = tarfile.TarInfo(f"{k}.jpg")
        entry.type = tarfile.GNUTYPE_SPARSE
        block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
        block[483:495] = b"%011o\0" % num_bytes
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        blocks.append(bytes(block))
    return b"".join(blocks) + bytes(1024)


BOMBS: dict[str, Callable[[], bytes]] = {
    **{kind: lambda kind=kind: zeros(kind, 6, 2**18) for kind in ("zip", "gz", "bz2", "xz")},  # type: ignore[misc]
    "a zip in a zip": lambda: made.zip_bytes({"inner": zeros("zip", 6, 2**18)}),
    "zips in a tar": lambda: made.tar_bytes({f"{k}": zeros("zip", 1, 2**18) for k in range(6)}),
    "a tar in a tar": lambda: made.tar_bytes({"inner": zeros("gz", 6, 2**18)}, "w:gz"),
    "sparse tar": lambda: sparse_tar(6, 2**18),
    "many empty files": lambda: zeros("gz", 4000, 0),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_archive_that_unpacks_to_far_more_than_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREELY_UNPACKED_BYTES", 2**20)
    (tmp_path / "a").write_bytes(BOMBS[kind]())
    sizes: list[int] = []

    def read() -> None:
        for member in archives.members(tmp_path / "a"):
            sizes.extend(len(one.read()) for one in (member.members() if " in a " in kind else [member]))

    with pytest.raises(archives.UnpacksTooLargeError, match=r"unpacks to more than 100 times as many"):
        read()
    assert sum(sizes) <= 2**20
    if kind == "zip":
        assert sizes == []
        with pytest.raises(archives.UnpacksTooLargeError):
            archives.unpacked_bytes(tmp_path / "a")


def test_small_archives_may_pack_as_well_as_they_like(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zeros("zip", 6, 2**18))
    assert sum(map(len, read_all(tmp_path / "a.zip"))) == archives.unpacked_bytes(tmp_path / "a.zip") == 6 * 2**18


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_what_stands_in_front_of_a_file_is_not_read_when_it_is_large(kind: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.type, entry.size = kind, 2**33
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match=r"damaged or cut short \(a header of 8589934592 bytes\)"):
        read_all(tmp_path / "a.tar")


def test_a_file_of_negative_size_ends_the_reading(tmp_path: Path) -> None:
    first = tarfile.TarInfo("a.jpg")
    entry = tarfile.TarInfo("b.jpg")
    entry.pax_headers = {"size": "-1024"}
    (tmp_path / "a.tar").write_bytes(first.tobuf() + entry.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="damaged or cut short"):
        read_all(tmp_path / "a.tar")


def test_linked_folders_are_read_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    (tmp_path / "shared" / "cat").mkdir(parents=True)
    (tmp_path / "shared" / "cat" / "1.jpg").write_bytes(b"1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "shared")
    (tmp_path / "shared" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / ".hidden.jpg").write_bytes(b"")
    assert [member.name for member in archives.members(tmp_path / "set")] == ["images/cat/1.jpg"]
