"""A product as one file for other programs: ONNX, torch.export or OpenVINO, compared with the network it came from."""

from fixres.export.engine import Exported, ExportRequest, export
from fixres.export.opened import ExportedModel, open_exported
from fixres.export.sheet import SUFFIXES, Format

__all__ = ["SUFFIXES", "ExportRequest", "Exported", "ExportedModel", "Format", "export", "open_exported"]
