"""Images: collections and their splits, decoding, transforms, sampling, and batches.

Not here: networks, and what they make of an image.
"""
