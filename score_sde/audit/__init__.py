"""Audits of samples against the data that a model was trained on. All are computations on arrays."""

from score_sde.audit.duplicates import near_duplicates
from score_sde.audit.exchangeability import Exchangeable, Power, exchangeable, power
from score_sde.audit.intervals import Interval, share
from score_sde.audit.memorisation import Copying, Memorised, auth_pct, c_t, carlini, gu_ratio
from score_sde.audit.neighbours import Neighbours, nearest

__all__ = [
    "Copying",
    "Exchangeable",
    "Interval",
    "Memorised",
    "Neighbours",
    "Power",
    "auth_pct",
    "c_t",
    "carlini",
    "exchangeable",
    "gu_ratio",
    "near_duplicates",
    "nearest",
    "power",
    "share",
]
