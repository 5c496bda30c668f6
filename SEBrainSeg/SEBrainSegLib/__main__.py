"""``python -m SEBrainSegLib`` is ``sebrainseg``."""

import sys

from .cli import main

sys.exit(main())
