"""Looking at a collection before it is trained on: what is wrong with it, and what it is like."""

from fixres.inspection.check import check
from fixres.inspection.findings import Report
from fixres.inspection.statistics import Statistics, statistics

__all__ = ["Report", "Statistics", "check", "statistics"]
