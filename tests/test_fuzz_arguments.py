"""The check of arguments itself, under arguments that do not fit."""

import numpy as np
from fuzzing import HOSTILE, quick, survives
from hypothesis import given, strategies
from test_arguments import T, X, everything

VALID = dict(
    x=X, t=np.array(T, np.float32), scale=1.0, labels=[1, 2], n=3, kind="a", each=len, sizes=(1, 2), pair=(1.0, "")
)


@quick
@given(strategies.data())
def test_arguments_that_do_not_fit_are_named(data):
    survives(everything, VALID, data, repeated=200)


def test_each_hostile_value_is_taken_or_refused_by_each_kind():
    from fuzzing import check

    for name in VALID:
        for value in HOSTILE:
            check(everything, VALID | {name: value})
