"""Fetching files: whole or not at all, resumed after an interruption, checked, found again where PyTorch looks.

Not here: which files there are to fetch (`models.released`, `data.prepare`).
"""
