"""`python -m score_sde.config`: writes the page of all keys to standard output, for configs/KEYS.md."""

from score_sde.config.explanation import page

print(page(), end="")
