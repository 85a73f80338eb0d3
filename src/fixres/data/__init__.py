"""Pictures: collections and their splits, decoding, and batches."""
