"""The command line: parsing, help, what a person sees while work goes on. It alone prints.

Not here: the work itself.
"""
