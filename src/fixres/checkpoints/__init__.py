"""The model folder in timm's layout that says how it wants to be fed, and everything that can become one.

Not here: the resumable state of a run (`training.state`).
"""

from fixres.checkpoints.folder_write import BEFORE_FIX, save_product
from fixres.checkpoints.product import Product, Sheet
from fixres.checkpoints.resolve import load

__all__ = ["BEFORE_FIX", "Product", "Sheet", "load", "save_product"]
