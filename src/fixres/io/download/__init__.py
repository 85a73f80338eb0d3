"""Fetching files: whole or not at all, resumed after an interruption, checked, found again where PyTorch looks.

Not here: which files there are to fetch (`models.released`, `data.prepare`).
"""

from fixres.io.download.address import parse_url
from fixres.io.download.cache import checkpoint_folder, fetch
from fixres.io.download.transfer import Progress

__all__ = ["Progress", "checkpoint_folder", "fetch", "parse_url"]
