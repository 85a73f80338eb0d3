"""Fixing without training epochs: the frozen trunk runs once, the head is solved on its features.

Not here: fixing by SGD, which is the loop. README.md says why this is hard.
"""
