"""Audits of samples against the data that a model was trained on. All are computations on arrays."""

from score_sde.audit.intervals import Interval, share
from score_sde.audit.neighbours import Neighbours, nearest

__all__ = ["Interval", "Neighbours", "nearest", "share"]
