"""What stands in a PNG beside the picture: texts, colour profiles, XMP, dates. What is wrong with it harms no pixel.

Pillow refuses a PNG for texts and profiles beyond its limits (1 MiB each, 64 MiB together), and for those it cannot
read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_START = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Chunks that pixels depend on, and the one that says which side is up."""
_UPRIGHT = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""How texts begin that may say which side is up, too."""
_NAMES = {b"iCCP": "ICC profile", b"tEXt": "text", b"zTXt": "text", b"iTXt": "text"}
_SMALL = 1 << 16


def without_metadata(data: bytes) -> tuple[bytes, str]:
    """Return a PNG without what its picture does not need, and in words what was left out: "" of what is no PNG."""
    if not data.startswith(_START):
        return data, ""
    kept, dropped = [_START], []
    for kind, payload, chunk in _chunks(data):
        if kind in _PICTURE or not kind or _is_small_orientation(kind, payload):
            kept.append(chunk)
        else:
            name = "XMP" if payload.startswith(_UPRIGHT[1]) else _NAMES.get(kind, kind.decode("latin-1"))
            dropped.append(name)
    return b"".join(kept), ", ".join(dict.fromkeys(dropped))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, content and the whole of every chunk; what is cut short is one without a kind."""
    place = len(_START)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 12 + length
        if end > len(data):
            yield b"", b"", data[place:]
            return
        yield data[place + 4 : place + 8], data[place + 8 : end - 4], data[place:end]
        place = end


def _is_small_orientation(kind: bytes, payload: bytes) -> bool:
    if len(payload) > _SMALL or not payload.startswith(_UPRIGHT):
        return False
    _, _, rest = payload.partition(b"\0")
    if kind == b"iTXt":
        return rest[:1] == b"\0"
    if kind == b"zTXt":
        unpacked = zlib.decompressobj()
        try:
            unpacked.decompress(rest[1:], _SMALL)
        except zlib.error:
            return False
        return not unpacked.unconsumed_tail and rest[:1] == b"\0"
    return kind == b"tEXt"
