"""Run the command line as ``python -m gptbook.app``."""

import sys

from gptbook.app.main import main

sys.exit(main())
