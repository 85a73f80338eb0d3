"""Fixing without training epochs: the frozen trunk runs once, the head is solved on its features.

Not here: fixing by SGD, which is the loop. README.md says why this is hard.
"""

from fixres.training.cached_solver.feature_cache import Cache, cache_key
from fixres.training.cached_solver.logistic_head import Candidate, Found, Head, Rows, search
from fixres.training.cached_solver.norm_statistics import Moments, merge, moments_of
from fixres.training.cached_solver.solve import SOLVED, Problem, Solution, check, solve
from fixres.training.cached_solver.views import MAX_VIEWS, max_views

__all__ = [
    "MAX_VIEWS",
    "SOLVED",
    "Cache",
    "Candidate",
    "Found",
    "Head",
    "Moments",
    "Problem",
    "Rows",
    "Solution",
    "cache_key",
    "check",
    "max_views",
    "merge",
    "moments_of",
    "search",
    "solve",
]
