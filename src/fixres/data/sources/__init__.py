"""One file for each scheme of a data URI, each opening its splits.

Not here: what all collections share, such as roles of splits, which is in `data.collections`.
"""
