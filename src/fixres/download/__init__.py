"""Fetching files: whole or not at all, resumed after an interruption, checked, and found again where PyTorch looks."""

from fixres.download.address import parse_url
from fixres.download.files import checkpoint_folder, fetch, fetch_released
from fixres.download.transfer import Progress

__all__ = ["Progress", "checkpoint_folder", "fetch", "fetch_released", "parse_url"]
