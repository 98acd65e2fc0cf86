"""`python -m infrasight.server`."""

import sys

from infrasight.server.program import main

if __name__ == "__main__":
    sys.exit(main())
