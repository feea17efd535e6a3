"""`python -m score_sde`."""

import sys

from score_sde.backend import configure

configure()

from score_sde.main import main  # noqa: E402  (JAX reads its environment when it is imported)

sys.exit(main())
