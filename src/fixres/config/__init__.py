"""What a run is told: the recipe and its stages, defaults, rules, YAML text, and mistakes put into words.

Not here: anything that opens a picture, builds a network or imports torch.
"""
