"""Files of other projects: what layout they have, whose names they use, what of a training can be taken over.

Not here: reading them safely (`io.safe_load`).
"""

from fixres.checkpoints.foreign.fit import fit, named_optimizer_state
from fixres.checkpoints.foreign.layouts import Found, choose, open_checkpoint, untrained_statistics
from fixres.checkpoints.foreign.lukemelas import efficientnet_names, from_lukemelas, packaged_lite0_file

__all__ = [
    "Found",
    "choose",
    "efficientnet_names",
    "fit",
    "from_lukemelas",
    "named_optimizer_state",
    "open_checkpoint",
    "packaged_lite0_file",
    "untrained_statistics",
]
