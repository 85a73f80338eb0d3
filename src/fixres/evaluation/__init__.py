"""What a network is worth: evaluation in one pass, metrics, calibration, and the table with one row per image.

Not here: choosing anything by it; sizes are chosen in `training` and `experiments`.
"""
