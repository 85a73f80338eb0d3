"""The bodies of the commands. Each takes its words and returns an exit code; `cli` names them all."""
