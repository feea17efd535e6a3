"""The package's command line, `python -m score_sde`."""

import sys

from score_sde.cli.main import main

sys.exit(main())
