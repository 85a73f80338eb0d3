"""Tar shards as webdataset writes them, read in any order through an index. README.md says why this is hard.

Not here: the scheme `wds:`, which is in `data.sources.shards`.
"""

from fixres.data.pack import pack, write_shards
from fixres.data.sources.shards import open_shards

__all__ = ["open_shards", "pack", "write_shards"]
