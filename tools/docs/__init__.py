"""Pages and pictures of docs/ that are made from the code; `make docs` writes them all.

Not here: charts of reports (`fixres.reporting`).
"""
