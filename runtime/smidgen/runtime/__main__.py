"""``python -m smidgen.runtime``."""

import sys

from smidgen.runtime.command import main

if __name__ == "__main__":
    sys.exit(main())
