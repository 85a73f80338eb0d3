"""Official archives to folder collections, and the archives themselves from where they are served.

Not here: reading the folders that come out (`data.sources`).
"""
