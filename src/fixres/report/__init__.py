"""The report: one self-contained HTML page about one run or several."""

from fixres.report.page import write_report

__all__ = ["write_report"]
