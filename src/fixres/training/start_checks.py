"""What a start looks at more closely or lets pass, and how long it may take, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StartChecks:
    """How sure a run wants to be of its folder and its pictures before it starts, and when its time is up."""

    take_over: bool = False
    """Count a run on another machine that still holds the folder as dead."""
    check_data: bool = False
    """Keep a hash of every picture file when the run begins, and compare them when it goes on."""
    accept_data: bool = False
    """Go on with picture files that are not those the run began with."""
    deadline: float | None = None
    """Of `time.monotonic()`: a stage by sgd ends after the step it is in then; `stop_step` ends another run there."""


AS_USUAL = StartChecks()
"""A run elsewhere counts as alive; sizes and times of picture files are compared, and another size is refused."""
