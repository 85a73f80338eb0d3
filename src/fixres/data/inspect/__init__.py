"""Looking at a collection before it is trained on: what is wrong with it, and what it is like.

Not here: changing it.
"""

from fixres.data.inspect.check import check
from fixres.data.inspect.check_report import Report
from fixres.data.inspect.statistics import Statistics, statistics

__all__ = ["Report", "Statistics", "check", "statistics"]
