"""The report: one self-contained HTML page about one run or several."""

from fixres.report.page import Report, read_report, write_report

__all__ = ["Report", "read_report", "write_report"]
