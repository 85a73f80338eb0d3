"""Modules of the user's own, which register losses, values of `moves` and the like."""

from __future__ import annotations

import importlib
import os

from fixres.errors import UserError

VARIABLE = "FIXRES_PLUGINS"
_loaded: set[str] = set()


def load_plugins() -> None:
    """Import the modules that FIXRES_PLUGINS names, separated by commas, unless they were.

    Every process that starts a command or checks a recipe comes by here, so what they register is known in all of them.

    Raises:
        UserError: a module cannot be imported.
    """
    for name in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        if name in _loaded:
            continue
        # Noted before, since a plugin may check a recipe itself.
        _loaded.add(name)
        try:
            importlib.import_module(name)
        except Exception as error:
            _loaded.remove(name)
            reason = str(error) if isinstance(error, UserError | ImportError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"{VARIABLE}: cannot import '{name}': {reason}\n  its folder must be in PYTHONPATH; unset {VARIABLE} to"
                " do without"
            ) from error
