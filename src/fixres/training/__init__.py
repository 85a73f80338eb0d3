"""From a recipe to a product: the run, its stages, the loop, losses, schedules, checkpointing, the cached solver.

Not here: what may move (`models`), and what a fix is worth (`evaluation`).
"""
