"""One file for each command, named as the command: its flags, and a function that returns an exit code.

Not here: parsing of flags, and the table of all commands in `cli.main`.
"""
