"""The package's command line, `python -m score_sde`, which is installed as `score_sde` too."""

import sys

from score_sde.cli.main import main

sys.exit(main())
