"""timm behind one door: build a network, find its head and last norms, give it another size, count its work.

Not here: weights read from files (`checkpoints`), and training.
"""
