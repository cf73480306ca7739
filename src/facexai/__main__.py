"""``python -m facexai``."""

import sys

from facexai.cli import main

sys.exit(main())
