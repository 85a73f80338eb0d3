"""`wds:PATTERN` - pictures in tar shards, as webdataset writes them, read in any order through an index."""

from fixres.data.shards.opening import open_shards
from fixres.data.shards.writing import pack, write_shards

__all__ = ["open_shards", "pack", "write_shards"]
