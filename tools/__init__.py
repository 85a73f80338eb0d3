"""Programs of this checkout that users never run.

Not here: anything the package imports.
"""
