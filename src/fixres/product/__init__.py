"""The product: a model folder in timm's layout that says how it wants to be fed, and everything that can become one."""

from fixres.product.sources import load
from fixres.product.value import Product, Sheet
from fixres.product.write import BEFORE_FIX, save_product

__all__ = ["BEFORE_FIX", "Product", "Sheet", "load", "save_product"]
