"""What may be fetched, what it is checked against, and where it lies; no server needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest
import torch

from fixres.errors import UserError
from fixres.io.download import address
from fixres.io.download.address import parse_url
from fixres.io.download.cache import checkpoint_folder, fetch


def test_a_redirect_may_not_leave_https() -> None:
    def hop(old: str, new: str) -> Request | None:
        return address._Redirects().redirect_request(Request(old), BytesIO(), 302, "", HTTPMessage(), new)

    with pytest.raises(UserError, match="not safe"):
        hop("https://one.org/a", "http://one.org/a")
    assert hop("http://one.org/a", "https://one.org/a") is not None
    assert hop("https://one.org/a", "https://two.org/a") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url:https://one.org/a/net.pth", ("https://one.org/a/net.pth", "")),
        ("url:https://one.org/net.pth?x=1#sha256=0123ABCD", ("https://one.org/net.pth?x=1", "0123abcd")),
        ("url:http://one.org/net.pth#sha256=0123abcd", ("http://one.org/net.pth", "0123abcd")),
        ("url:http://one.org/net-0123abcd.pth", ("http://one.org/net-0123abcd.pth", "")),
    ],
)
def test_addresses_with_checksums_are_understood(text: str, expected: tuple[str, str]) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url:", "not an address"),
        ("url:net.pth", "not an address"),
        ("url:https:///net.pth", "not an address"),
        ("url:file:///etc/passwd", "not an address"),
        ("url:ftp://one.org/net.pth#sha256=0123abcd", "not an address"),
        ("url:https://one.org:port/net.pth", "not an address"),
        ("url:https://[one/net.pth", "not an address"),
        ("url:https://me:secret@one.org/net.pth", "holds a password"),
        ("url:https://one.org/my net.pth", "characters"),
        ("url:http://one.org/net.pth", "plain http"),
        ("url:https://one.org/net.pth#md5=0123abcd", "'#md5=0123abcd' is not known"),
        ("url:https://one.org/net.pth#sha256=0123abc", "8 to 64"),
        ("url:https://one.org/net.pth#sha256=0123abcx", "8 to 64"),
        ("url:https://one.org/net.pth#", "is not known"),
    ],
)
def test_other_addresses_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"), [("https://one.org/", ""), ("https://one.org/a", "../a"), ("https://a/..", "")]
)
def test_a_file_needs_a_name_of_its_own(tmp_path: Path, url: str, name: str) -> None:
    with pytest.raises(UserError, match="name of a file"):
        fetch(url, folder=tmp_path, name=name)


def test_equal_names_from_two_places_are_told_apart(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "best.pth").write_bytes(b"weights")
    # Nobody wrote down where this one came from: it was put there by hand, or by PyTorch.
    assert fetch("https://one.org/best.pth", folder=tmp_path).exists()
    (tmp_path / "best.pth.url").write_text("https://one.org/best.pth\n")
    assert fetch("https://one.org/best.pth?signature=1", folder=tmp_path).exists()
    assert fetch("https://two.org/best.pth", sha256=digest, folder=tmp_path).exists()
    with pytest.raises(UserError, match=r"came from another address: https://one\.org/best\.pth"):
        fetch("https://two.org/best.pth", folder=tmp_path)


@pytest.mark.parametrize("given", [{}, {"TORCH_HOME": "~/there"}, {"XDG_CACHE_HOME": "/cache"}])
def test_files_lie_where_pytorch_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str]) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    expected = Path(torch.hub.get_dir()) / "checkpoints"
    assert checkpoint_folder() == expected
    monkeypatch.delitem(sys.modules, "torch.hub")
    assert checkpoint_folder() == expected


def test_a_folder_set_in_pytorch_is_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert checkpoint_folder() == tmp_path / "checkpoints"


def test_a_download_does_not_wait_for_torch() -> None:
    code = "import sys, fixres.io.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
