"""What may be fetched, and what it is checked against; no server needed."""

from __future__ import annotations

from http.client import HTTPMessage
from io import BytesIO
from urllib.request import Request

import pytest

from fixres.errors import UserError
from fixres.io.download import address
from fixres.io.download.address import parse_url


def test_a_redirect_may_not_leave_https() -> None:
    def hop(old: str, new: str) -> str:
        request = address._Redirects().redirect_request(Request(old), BytesIO(), 302, "", HTTPMessage(), new)
        assert request is not None
        return request.full_url

    with pytest.raises(UserError, match="not safe"):
        hop("https://one.org/a", "http://one.org/a")
    for old, new in (("http://one.org/a", "https://one.org/a"), ("https://one.org/a", "https://two.org/a")):
        assert hop(old, new) == new


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
