from fractions import Fraction

import numpy as np
import pytest

from score_sde.sampling.tableaus import ORDER, TABLEAUS


def trees(order):
    """Rooted trees with this number of vertices, as sorted tuples of the trees above the root."""
    return [()] if order == 1 else sorted(set(forests(order - 1, order - 1)))


def forests(vertices, largest):
    """Multisets of trees of up to `largest` vertices each, with this number of vertices in all."""
    if vertices == 0:
        return [()]
    return [
        tuple(sorted((tree, *rest)))
        for size in range(1, min(vertices, largest) + 1)
        for tree in trees(size)
        for rest in forests(vertices - size, size)
    ]


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    """gamma(tree): the product over all vertices of the number of vertices from there on."""
    return size(tree) * int(np.prod([density(branch) for branch in tree], dtype=int))


def stages(a, tree):
    """The elementary weight of each stage: a product over the branches, each summed over the stages before."""
    return np.prod([np.ones(len(a)), *(a @ stages(a, branch) for branch in tree)], axis=0)


def defect(a, weights, order):
    """The largest violation of the conditions of exactly this order."""
    return max(abs(weights @ stages(a, tree) - float(Fraction(1, density(tree)))) for tree in trees(order))


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_tableau_meets_the_conditions_of_its_orders_and_of_no_higher_ones(name):
    tableau = TABLEAUS[name]
    solution, embedded = tableau.a[-1], tableau.a[-1] - tableau.e
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    for weights, order in ((solution, ORDER), (embedded, ORDER - 1)):
        assert max(defect(tableau.a, weights, n) for n in range(1, order + 1)) < 2e-14
        assert defect(tableau.a, weights, order + 1) > 1e-4
    np.testing.assert_allclose(tableau.a.sum(1), tableau.c, atol=1e-14)
    assert np.all(np.triu(tableau.a) == 0)
