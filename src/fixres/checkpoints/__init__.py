"""The model folder in timm's layout that says how it wants to be fed, and everything that can become one.

Not here: the resumable state of a run (`training.state`).
"""
