"""``python -m equimark``: the command line, as launchers of several processes start it."""

import sys

from equimark import processes
from equimark.cli import main

if __name__ == "__main__":
    code = main()
    processes.leave()
    sys.exit(code)
