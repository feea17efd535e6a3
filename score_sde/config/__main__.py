"""Writer of the page of all keys, to standard output, for configs/KEYS.md: `python -m score_sde.config`."""

from score_sde.config.explanation import page

print(page(), end="")
