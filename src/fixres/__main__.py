"""`python -m fixres`, and the target of the installed command."""

import sys

from fixres.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
