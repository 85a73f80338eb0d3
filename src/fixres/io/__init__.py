"""Bytes and disks: atomic files, tensors and tables that survive an interruption, downloads, archives, safe loading.

Not here: what the bytes mean; model folders are in `checkpoints`, pictures in `data`.
"""
