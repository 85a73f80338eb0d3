"""The formats of exported files: one module each, which says how files of it are written, opened and judged.

Not here: tracing the network (`inference.export.trace`) and comparing a file with it (`inference.export.parity`).
"""
