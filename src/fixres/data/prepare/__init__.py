"""Official archives to folder collections, and the archives themselves from where they are served."""

from fixres.data.prepare.fetching import download
from fixres.data.prepare.parts import DataSet, Progress
from fixres.data.prepare.table import SETS, find_set
from fixres.data.prepare.write import RECORD, Report, prepare

__all__ = ["RECORD", "SETS", "DataSet", "Progress", "Report", "download", "find_set", "prepare"]
