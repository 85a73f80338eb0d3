"""Speed against what people use today, both sides taking turns on this machine.

Not here: speeds of a run or a server, which their own logs and metrics state.
"""
