"""``python -m smidgen.cli``: the same as ``smidgen``."""

import sys

from smidgen.cli.main import main

sys.exit(main())
