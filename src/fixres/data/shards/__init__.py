"""Tar shards as webdataset writes them, read in any order through an index. README.md says why this is hard.

Not here: the scheme `wds:`, which is in `data.sources.shards`.
"""
