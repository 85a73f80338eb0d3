"""Looking at a collection before it is trained on: what is wrong with it, and what it is like.

Not here: changing it.
"""
