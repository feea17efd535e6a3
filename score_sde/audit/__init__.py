"""Audits of samples against the data that a model was trained on. All are computations on arrays."""

from score_sde.audit.cells import CellCopying, SpaceCell, c_t_by_cell
from score_sde.audit.denoiser import AtLevel, audit_denoiser
from score_sde.audit.duplicates import near_duplicates
from score_sde.audit.exchangeability import Exchangeable, Power, exchangeable, power
from score_sde.audit.intervals import Interval, share
from score_sde.audit.membership import auc, combined, losses, tpr_at
from score_sde.audit.memorisation import Copying, Memorised, auth_pct, c_t, carlini, gu_ratio
from score_sde.audit.neighbours import Neighbours, aligned, nearest

__all__ = [
    "AtLevel",
    "CellCopying",
    "Copying",
    "Exchangeable",
    "Interval",
    "Memorised",
    "Neighbours",
    "Power",
    "SpaceCell",
    "aligned",
    "auc",
    "audit_denoiser",
    "auth_pct",
    "c_t",
    "c_t_by_cell",
    "carlini",
    "combined",
    "exchangeable",
    "gu_ratio",
    "losses",
    "near_duplicates",
    "nearest",
    "power",
    "share",
    "tpr_at",
]
