"""A product behind HTTP: predictions, health, metrics, and a page that shows the effect of size.

Not here: the command `serve`. README.md says why this is hard.
"""
