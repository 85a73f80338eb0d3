"""A product as one file for other programs: ONNX, torch.export or OpenVINO, compared with the network it came from.

Not here: backends that compute a network in this process (`models.backends`).
"""
