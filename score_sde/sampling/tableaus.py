"""Tableaus of embedded Runge-Kutta pairs of order 5(4), of seven stages, the last of which is the next step's first.

    k_s = f(t + c_s h, y + h sum_j a_sj k_j),   y_new = y + h sum_j a_7j k_j,   error = h sum_s e_s k_s

The error is the difference of y_new from a solution of order 4 with the same stages.
`tests/test_tableaus.py` holds these orders by their conditions.

Dormand and Prince's is the default, because on networks it takes fewer evaluations, and bits/dim stay what they were.
With exact scores of a mixture Tsitouras' pair was 0.6 to 1.8 times as accurate, mostly more than 1, in as many
evaluations at tolerances of 1e-4 and 1e-5, and 0.4 to 0.65 times at 1e-3. With the networks of short trainings on
CIFAR-10 at 16x16 (8 images, against 1e-6) its samples were about as near to the solution, in more evaluations: 219
instead of 102 under VP and 220 of 97 under VE at 1e-4, 468 of 332 and 550 of 341 at 1e-5. Its likelihoods under VP were
1.5 to 3.5 times as accurate in 1.35 to 1.8 times as many. A likely reason, not tested, is that its e is ten times
larger, and takes the roughness of a network for an error.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ORDER = 5  # of y_new


class Tableau(NamedTuple):
    """The numbers of a pair: a is lower triangular without its diagonal, c its sums."""

    c: np.ndarray
    a: np.ndarray
    e: np.ndarray


def _tableau(c: Sequence[float], rows: Sequence[Sequence[float]], e: Sequence[float]) -> Tableau:
    """The tableau with these rows of a, from the second on."""
    a = np.zeros((len(e), len(e)))
    for row, numbers in enumerate(rows, 1):
        a[row, :row] = numbers
    return Tableau(np.array(c), a, np.array(e))


# Dormand and Prince, 1980, "A family of embedded Runge-Kutta formulae": RK5(4)7M.
DORMAND_PRINCE = _tableau(
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40),
)

# Tsitouras, 2011, "Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption".
TSITOURAS = _tableau(
    (0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1),
    (
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    (
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
)

TABLEAUS = {"dopri5": DORMAND_PRINCE, "tsit5": TSITOURAS}
