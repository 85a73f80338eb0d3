"""Fixing without training epochs: the frozen trunk runs once, the head is solved on what it gave."""

from fixres.solver.cache import Cache, cache_key
from fixres.solver.head import Candidate, Found, Head, Rows, search
from fixres.solver.moments import Moments, merge, moments_of
from fixres.solver.solve import SOLVED, Problem, Solution, check, solve
from fixres.solver.views import MAX_VIEWS, max_views

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
