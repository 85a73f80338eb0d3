"""Files of other projects: what layout they have, whose names they use, what of a training can be taken over.

Not here: reading them safely (`io.safe_load`).
"""
