"""The machine a run is on: device, processes, signals, memory, the run folder, trackers.

Not here: what is computed on it.
"""
