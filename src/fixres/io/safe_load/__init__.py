"""Reading files of unknown authors: nothing in them runs, and nothing is allocated that they do not hold.

Not here: what the tensors mean (`checkpoints`).
"""
