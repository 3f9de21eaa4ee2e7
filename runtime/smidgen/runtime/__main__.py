"""``python -m smidgen.runtime``."""

import sys

if __name__ == "__main__":
    try:
        from smidgen.runtime.command import main

        sys.exit(main())
    except KeyboardInterrupt:  # Ctrl-C while still importing
        sys.exit(130)
