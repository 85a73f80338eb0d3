"""Official archives to folder collections, and the archives themselves from where they are served.

Not here: reading the folders that come out (`data.sources`).
"""

from fixres.data.prepare.known_sets import SETS, find_set
from fixres.data.prepare.official_archives import download
from fixres.data.prepare.parts import DataSet, Progress
from fixres.data.prepare.writer import RECORD, Report, prepare

__all__ = ["RECORD", "SETS", "DataSet", "Progress", "Report", "download", "find_set", "prepare"]
