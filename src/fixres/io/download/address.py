"""Addresses that may be fetched, the checksums that go with them, and how they are opened."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib import request as web
from urllib.parse import SplitResult, urlsplit

from fixres.errors import UserError

_HEX = re.compile(r"[0-9a-f]{8,64}")
# torch.hub's convention. A run of digits alone is more often a date than a checksum, so one letter is asked for.
_HASH_IN_NAME = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.[^-]*$")


@dataclass(frozen=True)
class Checksums:
    """The first digits of checksums; empty where not known."""

    sha256: str
    md5: str

    @property
    def known(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.sha256 or self.md5)

    def mismatch(self, path: Path) -> str:
        """Return what was expected and what is there, or an empty string when the file is right."""
        for kind, name, expected in (("SHA-256", "sha256", self.sha256), ("MD5", "md5", self.md5)):
            if not expected:
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
            if not found.startswith(expected):
                return f"{kind} {expected} expected, {found} found"
        return ""


def parse_url(text: str) -> tuple[str, str]:
    """Split `url:https://host/file.pth#sha256=HEX` into the address and the checksum, empty when there is none.

    Raises:
        UserError: no address of a file, another fragment, or http without a checksum.
    """
    url, mark, fragment = text.strip().removeprefix("url:").partition("#")
    require_address(url)
    key, _, digits = fragment.partition("=")
    if mark and (key != "sha256" or not _HEX.fullmatch(digits.lower())):
        raise UserError(
            f"'#{fragment}' is not known\n"
            f"  after # comes sha256= and the checksum, or its first digits (8 to 64): {url}#sha256=HEX"
        )
    require_checksums(url, digits)
    return url, digits.lower()


def require_address(url: str) -> SplitResult:
    """Return the parts of an address of http or https.

    Raises:
        UserError: it is another kind of address, or none.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"'{url}' is not an address ({error})\n  give https://HOST/FILE") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"'{url}' is not an address that can be fetched\n  give https://HOST/FILE")
    if parts.username is not None:
        raise UserError(f"the address at {host} holds a password\n  fetch the file yourself and give its path")
    if not url.isascii() or re.search(r"[\s\0-\x1f\x7f]", url):
        raise UserError(f"'{url}' holds characters that an address cannot have\n  write them as %20 and the like")
    return parts


def require_checksums(url: str, sha256: str = "", md5: str = "") -> Checksums:
    """Return what the file at `url` is checked against: what was given, else the digits in its name.

    Raises:
        UserError: a checksum is none, or the address is plain http and nothing is known to check.
    """
    for kind, digits in (("sha256", sha256), ("md5", md5)):
        if digits and not _HEX.fullmatch(digits.lower()):
            raise UserError(f"{kind} '{digits}' is not a checksum\n  give 8 to 64 hexadecimal digits")
    parts = urlsplit(url)
    in_name = _HASH_IN_NAME.search(parts.path.rsplit("/", 1)[-1])
    if not (sha256 or md5) and in_name:
        sha256 = in_name[1]
    checksums = Checksums(sha256.lower(), md5.lower())
    if parts.scheme == "http" and not checksums.known:
        raise UserError(
            f"{url}: whoever sits in between can change what comes by plain http\n"
            f"  give an https address, or the checksum: {url}#sha256=HEX"
        )
    return checksums


class _Redirects(web.HTTPRedirectHandler):
    """Follows a few redirects; headers, Range among them, go along."""

    max_redirections = 5

    def redirect_request(
        self, req: web.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> web.Request | None:
        """Refuse to leave https."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise UserError(f"{req.full_url} sends us to {newurl}, which is not safe\n  give another https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> web.OpenerDirector:
    """Return what opens http and https, follows redirects and heeds the proxy variables; nothing else."""
    # Not build_opener, which also opens file:, ftp: and data:.
    director = web.OpenerDirector()
    for handler in (
        web.ProxyHandler(),
        web.HTTPHandler(),
        web.HTTPSHandler(),
        web.HTTPDefaultErrorHandler(),
        _Redirects(),
        web.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    return director
