"""MATLAB's .mat files, the form in which some data sets keep their labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fixres.errors import UserError, require_extra


def read_mat(source: Path | bytes, name: str = "") -> dict[str, Any]:
    """Return the variables of a .mat file, with dimensions of 1 squeezed away. Nothing in such a file can run.

    Raises:
        UserError: scipy is not installed, or it is no .mat file.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise require_extra("scipy", "sets") from None
    name = name or ("a table" if isinstance(source, bytes) else str(source))
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        variables: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise UserError(
            f"cannot read {name}: it is no .mat file, or damaged ({type(error).__name__})\n  fetch it again"
        ) from error
    return _Variables(variables, name)


class _Variables(dict[str, Any]):
    def __init__(self, variables: dict[str, Any], name: str) -> None:
        super().__init__(variables)
        self.name = name

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.name} holds no '{key}'\n  it is not the file of this data set")
