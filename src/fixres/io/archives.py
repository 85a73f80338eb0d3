"""Archives of unknown authors, member by member: nothing is unpacked by its own name, nothing leaves a folder.

A tar (plain, gzip, bzip2, xz), a zip and an unpacked folder read the same, in a fixed order.
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Self

from fixres.errors import UserError
from fixres.io.folder_walk import is_hidden, walk

MAX_MEMBER_BYTES = 2**28
"""No picture, table or batch of a known data set is larger than 256 MB; an archive that says so is not believed."""
MAX_UNPACKED_RATIO = 100
"""Times its own bytes that an archive may unpack to. Those of the known data sets hold pictures, which hardly pack."""
FREELY_UNPACKED_BYTES = 2**30
"""What any archive may unpack to: small tables pack better than pictures."""
_MAX_HEADER_BYTES = 2**20
"""Of a long name, or what else a tar says about one member in front of it."""

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
    OSError,
)
_HEAD_BYTES = 256
_BLOCK_BYTES = 4096


class UnpacksTooLargeError(UserError):
    """An archive unpacks to so much more than it is that it was made to fill a disk."""


class _Budget:
    """What an archive may unpack to, what lies in archives inside it included."""

    def __init__(self, archive: str, num_bytes: int) -> None:
        self.archive, self.num_bytes = archive, num_bytes
        self.left = max(FREELY_UNPACKED_BYTES, MAX_UNPACKED_RATIO * num_bytes)

    def take(self, num_bytes: int) -> None:
        """Count what is about to be read.

        Raises:
            UnpacksTooLargeError: that is more than the archive may unpack to.
        """
        self.left -= num_bytes
        if self.left < 0:
            raise UnpacksTooLargeError(
                f"{self.archive} has {self.num_bytes:,} bytes and unpacks to more than {MAX_UNPACKED_RATIO} times as "
                "many; refused\n  no archive of a known data set does; fetch it again"
            )


@dataclass(frozen=True)
class Member:
    """A file inside an archive. It must be read before the next member is asked for."""

    archive: str
    name: str
    """Its path inside, with '/', checked: relative, and never upwards."""
    size: int
    open: Callable[[], IO[bytes]]
    _budget: _Budget | None = None
    """Of the archive; None in a folder."""

    def read(self) -> bytes:
        """Return its content.

        Raises:
            UserError: damaged, cut short, or larger than any file of a known set.
        """
        if self.size > MAX_MEMBER_BYTES:
            raise UserError(
                f"{self.archive} holds {self.name[:100]} of {self.size} bytes; at most {MAX_MEMBER_BYTES} are read\n"
                "  this is not an archive of the data set"
            )
        with _damage(self.archive), self.open() as file:
            content = file.read(self.size + 1)
        if len(content) != self.size:
            raise _damaged(self.archive, f"{self.name[:100]} has {len(content)} of {self.size} bytes")
        return content

    def members(self) -> Iterator[Member]:
        """Yield the files in the archive that this file is.

        Raises:
            UserError: as of `members`.
        """
        where = f"{self.name} in {self.archive}"
        with _damage(self.archive):
            file = self.open()
        with file:
            yield from _members_of(file, where, self._budget or _Budget(where, self.size))


def members(path: Path) -> Iterator[Member]:
    """Yield the files in the archive or folder at `path`. Folders, and what macOS adds, are passed over.

    Raises:
        UserError: no archive, damaged, cut short; or it holds a link, a device, or a name that leads out of it.
        UnpacksTooLargeError: it unpacks to far more than it is.
    """
    if path.is_dir():
        yield from _folder_members(path)
        return
    with _damage(str(path)):
        file = path.open("rb")
    with file:
        yield from _members_of(file, str(path), _Budget(str(path), path.stat().st_size))


def unpacked_bytes(path: Path) -> int:
    """Return how many bytes the files in an archive have: a zip says so; of anything else its own size.

    Raises:
        UserError: it cannot be read, or is a damaged zip.
        UnpacksTooLargeError: it unpacks to far more than it is.
    """
    num_bytes = path.stat().st_size
    with _damage(str(path)), path.open("rb") as file:
        if not _is_zip(file):
            return num_bytes
        return _require_zip(zipfile.ZipFile(file), _Budget(str(path), num_bytes))


def _is_zip(file: IO[bytes]) -> bool:
    head = file.read(4)
    file.seek(0)
    return head in (b"PK\x03\x04", b"PK\x05\x06")


def _require_zip(packed: zipfile.ZipFile, budget: _Budget) -> int:
    """Return the bytes of all files, which must be within the budget: nothing is unpacked before that is known."""
    total = sum(entry.file_size for entry in packed.infolist())
    budget.take(total)
    return total


def _members_of(file: IO[bytes], archive: str, budget: _Budget) -> Iterator[Member]:
    with _damage(archive):
        is_zip = _is_zip(file)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    if is_zip:
        yield from _zip_members(file, archive, budget)
        return
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{archive} is a web page, not an archive\n  fetch it again; the link may want a login")
    yield from _tar_members(file, archive, budget)


def read_members(
    path: Path, names: Sequence[str], advice: str = "it is not the archive of this data set, or was cut short"
) -> dict[str, bytes]:
    """Return the content of the members called `names`, wherever in the archive they lie, by that name.

    Raises:
        UserError: one of them is missing; ends with `advice`.
    """
    found: dict[str, bytes] = {}
    for member in members(path):
        name = next((name for name in names if f"/{member.name}".endswith(f"/{name}")), None)
        if name is None or name in found:
            continue
        found[name] = member.read()
        if len(found) == len(names):
            return found
    missing = ", ".join(name for name in names if name not in found)
    raise UserError(f"{path} does not hold {missing}\n  {advice}")


def read_texts(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the text of the members called `names`, wherever in the archive they lie, by that name.

    Raises:
        UserError: one of them is missing, or is no text.
    """
    return {name: decode_text(content, f"{name} in {path}") for name, content in read_members(path, names).items()}


def decode_text(content: bytes, name: str) -> str:
    """Return UTF-8 text, with or without a byte order mark.

    Raises:
        UserError: it is none.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text ({error.reason} at byte {error.start})\n  fetch it again") from None


def _folder_members(root: Path) -> Iterator[Member]:
    for visited in walk(root):
        if visited.is_hidden:
            continue
        path = root / visited.path
        with _damage(str(root)):
            # Links are the user's own here: a folder of links to a shared disk is common.
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no plain file\n  remove it, or unpack the archive again")

        def open_file(path: Path = path) -> IO[bytes]:
            return path.open("rb")

        yield Member(str(root), visited.path, status.st_size, open_file)


class _Header(tarfile.TarInfo):
    """A header that is not believed when it says that what stands in front of its file is large.

    Python reads such a thing, a long name for example, into memory whole.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block of 512 bytes."""
        header = super().frombuf(buf, encoding, errors)
        if not header.isreg() and header.size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {header.size} bytes")
        return header


def _tar_members(file: IO[bytes], archive: str, budget: _Budget) -> Iterator[Member]:
    with _damage(archive):
        tar = tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header)  # noqa: SIM115 - closed below, with errors turned
    with tar:
        while True:
            with _damage(archive):
                entry = tar.next()
            if entry is None:
                _require_end(tar, archive)
                return
            if entry.size < 0:
                raise _damaged(archive, f"a file of {entry.size} bytes")
            # An empty file takes a block of the disk, and memory for its name.
            budget.take(max(entry.size, _BLOCK_BYTES))
            name = _safe_name(entry.name, archive)
            if entry.isdir() or is_hidden(PurePosixPath(name).name):
                continue
            if not entry.isreg():
                raise _refused(archive, name, "a link" if entry.issym() or entry.islnk() else "a device")

            def open_entry(entry: tarfile.TarInfo = entry) -> IO[bytes]:
                return tar.extractfile(entry) or io.BytesIO()

            yield Member(archive, name, entry.size, open_entry, budget)


def _require_end(tar: tarfile.TarFile, archive: str) -> None:
    """Refuse a tar that ends in something else than zeros or nothing: Python's reader takes rubbish for the end."""
    with _damage(archive):
        if tar.fileobj is not None:
            tar.fileobj.seek(tar.offset)
            block = tar.fileobj.read(tarfile.BLOCKSIZE)
            if block.strip(b"\0") or len(block) not in (0, tarfile.BLOCKSIZE):
                raise ValueError(f"no header at byte {tar.offset}")


def _zip_members(file: IO[bytes], archive: str, budget: _Budget) -> Iterator[Member]:
    with _damage(archive):
        packed = zipfile.ZipFile(file)
    with packed:
        _require_zip(packed, budget)
        for entry in packed.infolist():
            name = _safe_name(entry.filename, archive)
            if entry.is_dir() or is_hidden(PurePosixPath(name).name) or name.startswith("__MACOSX/"):
                continue
            mode = entry.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refused(archive, name, "a link" if stat.S_ISLNK(mode) else "a device")

            yield Member(archive, name, entry.file_size, partial(packed.open, entry), budget)


def _safe_name(name: str, archive: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or (parts and parts[0].endswith(":")):
        raise _refused(archive, name, "a name that leads out of it")
    return str(PurePosixPath(*parts))


def _refused(archive: str, name: str, what: str) -> UserError:
    return UserError(
        f"{archive} holds {what}: {name[:100]!r}; refused\n  no archive of a known data set does; fetch it again"
    )


def _damaged(archive: str, reason: object) -> UserError:
    return UserError(f"{archive} is damaged or cut short ({reason})\n  fetch it again; it has not been changed")


@contextmanager
def _damage(archive: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{archive} cannot be read ({error.strerror})") from error
    except _DAMAGE as error:
        text = str(error).strip().splitlines()
        raise _damaged(archive, text[0][:160] if text else type(error).__name__) from error
