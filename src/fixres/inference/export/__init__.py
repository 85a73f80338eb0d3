"""A product as one file for other programs: ONNX, torch.export or OpenVINO, compared with the network it came from.

Not here: backends that compute a network in this process (`models.backends`).
"""

from fixres.inference.export.export import Exported, ExportRequest, export
from fixres.inference.export.metadata import SUFFIXES, Format
from fixres.inference.export.open_exported import ExportedModel, open_exported

__all__ = ["SUFFIXES", "ExportRequest", "Exported", "ExportedModel", "Format", "export", "open_exported"]
