"""The report: one self-contained HTML page about one run or several, and its charts.

Not here: measuring anything anew; it reads what runs have written.
"""
