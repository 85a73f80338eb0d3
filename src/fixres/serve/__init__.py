"""A product behind HTTP: predictions, health, metrics, and a page that shows the effect of size."""

from fixres.serve.running import run_server
from fixres.serve.settings import Settings

__all__ = ["Settings", "run_server"]
