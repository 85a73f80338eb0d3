"""Using a trained network: predictions, features, ensembles and cascades, Grad-CAM, exported files, the server.

Not here: measuring it against labels (`evaluation`).
"""
