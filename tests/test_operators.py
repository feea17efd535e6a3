"""Linear operators: transposes, inverses, and images that meet an observation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditioning import Average, Blur, Inpaint, Linear, Observation, Sense
from score_sde.conditioning.grammar import ALL, chosen_class, observation_of, parts
from score_sde.conditioning.observations import check_observed
from score_sde.conditioning.operators import conjugate_gradients
from score_sde.errors import UsageError
from score_sde.images import write_png

SHAPE, N = (8, 8, 3), 2
MASK = jnp.asarray(np.random.default_rng(0).uniform(size=(N, 8, 8, 1)) < 0.4)
MATRIX = np.random.default_rng(1).standard_normal((192, 20)).astype(np.float32) / 8

OPERATORS = {
    "inpaint": Inpaint(MASK),
    "average": Average(4),
    "grey": Average(grey=True),
    "grey and smaller": Average(2, grey=True),
    "blur": Blur(1.0),
    "sense": Sense(0.3),
    "linear": Linear(lambda x: x.reshape(len(x), -1) @ MATRIX, SHAPE),
}
each = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def random(seed, shape=(N, *SHAPE)):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def uniform(seed):
    return np.random.default_rng(seed).uniform(size=(N, *SHAPE)).astype(np.float32)


def dot(u, v):
    return np.sum(np.asarray(u, np.float64) * np.asarray(v), axis=tuple(range(1, u.ndim)))


@each
def test_the_adjoint_is_the_transpose(operator):
    @jax.jit
    def applied(x, y):
        y = operator.measured(y)
        return operator.forward(x), y, operator.adjoint(y)

    x = random(0)
    forward, y, adjoint = applied(x, random(1, jax.eval_shape(operator.forward, x).shape))
    np.testing.assert_allclose(dot(forward, y), dot(x, adjoint), rtol=1e-4, atol=1e-4)


@each
@pytest.mark.parametrize("variance", [0.0, 0.5])
def test_solving_inverts(operator, variance):
    @jax.jit
    def solved(x):
        y = operator.forward(x)
        u = operator.solve(y, jnp.full(N, variance))
        return operator.forward(operator.adjoint(u)) + variance * u, y

    np.testing.assert_allclose(*solved(random(0)), atol=2e-4)


@each
def test_imposing_moves_to_the_nearest_image_that_is_so_observed(operator):
    @jax.jit
    def imposed(x, other):
        y = operator.forward(other)
        moved = operator.impose(x, y)
        again = operator.impose(moved + (x - moved) * 0.5, y)  # on the way: the same nearest image
        return y, moved, operator.forward(moved), again

    y, moved, observed, again = imposed(random(0), random(1))
    np.testing.assert_allclose(observed, y, atol=2e-4)
    np.testing.assert_allclose(again, moved, atol=5e-4)


def test_known_pixels_come_back_to_the_last_bit():
    x, truth = random(0), uniform(1)
    operator = OPERATORS["inpaint"]
    filled = jax.jit(lambda x, truth: operator.impose(x, operator.forward(truth)))(x, truth)
    np.testing.assert_array_equal(np.where(MASK, filled, 0), np.where(MASK, truth, 0))
    np.testing.assert_array_equal(np.where(MASK, 0, filled), np.where(MASK, 0, x))


@pytest.mark.parametrize("operator", [Average(grey=True), Average(4), Average(2, grey=True)])
def test_means_stay_where_colours_are_moved_into_range(operator):
    @jax.jit
    def limited(x, other):
        y = operator.forward(other)
        outside = operator.impose(x, y)
        inside = operator.limit(outside, y)
        return y, outside, inside, operator.forward(inside), operator.limit(inside, y)

    y, outside, inside, observed, kept = map(np.asarray, limited(random(1), uniform(0)))
    assert np.min(outside) < 0 and np.max(outside) > 1
    assert np.min(inside) >= 0 and np.max(inside) <= 1
    np.testing.assert_allclose(observed, y, atol=1e-6)
    np.testing.assert_allclose(kept, inside, atol=1e-6)  # what is in range already stays


def test_a_written_function_is_the_operator_it_writes():
    def fn(x):
        return x.reshape(len(x), 2, 4, 2, 4, 3).mean((2, 4))

    @jax.jit
    def of_both(y):
        both = Linear(fn, SHAPE), Average(4)
        return [operator.adjoint(y) for operator in both], [operator.solve(y, jnp.full(N, 0.1)) for operator in both]

    adjoints, solutions = of_both(random(0, (N, 2, 2, 3)))
    np.testing.assert_allclose(*adjoints, atol=1e-6)
    np.testing.assert_allclose(*solutions, atol=1e-5)


def test_conjugate_gradients_stop_where_a_matrix_is_not_positive():
    matrices = np.stack([np.diag([1.0, 2.0, 4.0]), np.diag([1.0, -3.0, 1.0])]).astype(np.float32)

    @jax.jit
    def solved(b):
        return conjugate_gradients(lambda u: jnp.einsum("bij,bj->bi", matrices, u), b, iterations=20)

    x = np.asarray(solved(jnp.ones((2, 3))))
    np.testing.assert_allclose(x[0], [1, 0.5, 0.25], rtol=1e-5)
    assert np.all(np.isfinite(x[1]))


def test_rows_of_an_observation_are_repeated_with_their_masks():
    observation = Observation(Inpaint(MASK), random(0), np.array([0.1, 0.2], np.float32))
    observation = jax.jit(Observation.repeated, static_argnums=1)(observation, 3)
    np.testing.assert_array_equal(observation.operator.mask[:3], np.broadcast_to(MASK[:1], (3, 8, 8, 1)))
    np.testing.assert_array_equal(observation.noise, np.float32([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))


def test_observations_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"makes \(2, 2, 2, 3\)"):
        check_observed(Average(4), jnp.zeros((2, 3, 3, 3)), SHAPE)
    with pytest.raises(UsageError, match="does not take images of shape"):
        check_observed(OPERATORS["linear"], jnp.zeros((2, 20)), (4, 4, 3))


@pytest.mark.parametrize(
    ("condition", "known"),
    [("left_half", np.s_[:, 4:]), ("right_half", np.s_[:, :4]), ("top_half", np.s_[4:]), ("bottom_half", np.s_[:4])],
)
def test_halves_are_hidden(condition, known):
    mask = np.zeros((8, 8), bool)
    mask[known] = True
    np.testing.assert_array_equal(observation_of(f"inpaint={condition}", SHAPE)(2).mask[1, :, :, 0], mask)


def test_masks_by_number_and_by_file(tmp_path):
    assert int(observation_of("inpaint=0.75", SHAPE)(1).mask.sum()) == 16
    assert int((~observation_of("inpaint=center", SHAPE)(1).mask).sum()) == 16
    sheet = np.zeros((8, 8, 3), np.uint8)
    sheet[:3] = 255
    write_png(tmp_path / "mask.png", sheet)
    assert int(observation_of(f"inpaint={tmp_path / 'mask.png'}", SHAPE)(1).mask.sum()) == 24
    write_png(tmp_path / "large.png", sheet, 2)
    with pytest.raises(UsageError, match=r"\(16, 16\) pixels, and images are of \(8, 8\)"):
        observation_of(f"inpaint={tmp_path / 'large.png'}", SHAPE)


def test_conditions_are_read():
    assert (chosen_class("class=3"), chosen_class("class=all"), chosen_class("colorize"), chosen_class("")) == (
        3,
        ALL,
        None,
        None,
    )
    assert observation_of("superresolve=2", SHAPE)(1) == Average(2)
    assert observation_of("colorize", SHAPE)(1) == Average(grey=True)
    assert observation_of("deblur=1.5", SHAPE)(1) == Blur(1.5)
    assert observation_of("sense=0.25", SHAPE)(1) == Sense(0.25)
    both = "inpaint=a=b/right_half.png; class=3"
    assert parts(both) == {"inpaint": "a=b/right_half.png", "class": "3"} and chosen_class(both) == 3
    assert observation_of("class=3;deblur=1.5", SHAPE).identity == "class=3;deblur=1.5"
    assert observation_of("class=3", SHAPE) is None and observation_of("", SHAPE) is None


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("inpait=center", "did you mean 'inpaint'"),
        ("inpaint=right_haf", "did you mean 'right_half'"),
        ("inpaint=missing.png", "No mask missing.png"),
        ("inpaint=1.5", "between 0 and 1"),
        ("superresolve=3", "divides"),
        ("superresolve=two", "whole factor"),
        ("deblur=-1", "between 0 and 8"),
        ("sense=0", "between 0 and 1"),
        ("colorize=blue", "takes no argument"),
        ("class=three", "ask by numbers"),
        ("class=3;inpait=center", "did you mean 'inpaint'"),
        ("class=3;class=4", "names class twice"),
        ("deblur=1.0;colorize", "deblur and colorize; choose one"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(condition, words):
    with pytest.raises(UsageError, match=words):
        chosen_class(condition)
        observation_of(condition, SHAPE)
    with pytest.raises(UsageError, match=r"1 channel"):
        observation_of("colorize", (8, 8, 1))
