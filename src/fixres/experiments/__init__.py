"""Questions that take several runs or measurements: seeds, grids, cost, advice, published tables, speed.

Not here: the page about a run (`reporting`).
"""
