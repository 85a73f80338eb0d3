"""The page: one file of ours, allowed to run its own script and to talk to this server only."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#1f5fbf"/>'
    '<rect x="3" y="3" width="5" height="5" fill="#fff"/><path d="M6 13h7V6" fill="none" stroke="#fff" '
    'stroke-width="1.6"/></svg>'
)


class Page:
    """The file's text with the headers it is sent with."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.icon = _ICON
        scripts = " ".join(_hashes(self.text, "script"))
        styles = " ".join(_hashes(self.text, "style"))
        self.headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; "
                "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        }


def _hashes(text: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in found]
    return [f"'sha256-{digest}'" for digest in digests]
