"""Conditional samplers have the law that is known of them, and the oracles' posteriors are Bayes' formula."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.experiments.posterior import measure, recursion
from score_sde.experiments.posterior.measure import (
    WITHIN,
    Errors,
    Record,
    difference,
    exact_law,
    missed_together,
    misses,
)
from score_sde.experiments.posterior.problems import GAUSSIAN, MIXTURE, PROBLEMS, matrix_of, sdes
from score_sde.experiments.posterior.recursion import Law, Seen
from score_sde.experiments.posterior.rows import CLASS, CLASS_PROBLEM, FLOW, SDES, Row, known_law, table
from score_sde.experiments.truth_table import problems as closed
from score_sde.experiments.truth_table.distribution import distance

from score_sde.conditioning import classifier_guidance, extrapolation
from score_sde.oracles import Gaussian
from score_sde.randomness import sample_keys
from score_sde.sde import VP

N, SAMPLES = 50, 4096


@pytest.mark.parametrize(
    "row",
    [
        Row("inpaint", "VP", "projection", steps=N),
        Row("inpaint", "VE", "pigdm", steps=N),
        Row("grey", "sub-VP", "tmpd", "euler_maruyama", N),
        Row("average", "VE", "projection", "dpmpp_2m", 10),
        Row("blur", "sub-VP", "projection", steps=N),
        Row("dense", "VP", "projection", steps=N),
    ],
    ids=str,
)
def test_moments_of_samples_are_those_of_the_recursion(row):
    exact, known = exact_law(row), known_law(row)
    got, variances = measure.moments_of(measure.draw(row, SAMPLES))
    standard = difference(Law(*map(np.sqrt, variances)), Law(*map(np.zeros_like, variances)), exact)
    apart, bias = difference(got, known, exact), difference(known, exact, exact)
    assert apart.mean < WITHIN * standard.mean and apart.covariance < WITHIN * standard.covariance
    if row.method != "tmpd" and row.problem != "blur":  # the test would notice: they are not samples of the posterior
        assert max(bias.mean / standard.mean, bias.covariance / standard.covariance) > 1.5 * WITHIN


def test_particles_approach_their_limit_and_not_the_posterior():
    row = Row("dense", "VE", "particles", steps=25, number=8)
    exact, limit = exact_law(row), known_law(row)
    got, variances = measure.moments_of(measure.draw(row, 2048))
    standard = difference(Law(*map(np.sqrt, variances)), Law(*map(np.zeros_like, variances)), exact)
    assert difference(got, limit, exact).covariance < WITHIN * standard.covariance
    assert difference(got, exact, exact).covariance > 1.5 * WITHIN * standard.covariance


@pytest.mark.parametrize("sde", SDES)
def test_the_bias_of_tmpd_vanishes_with_the_steps_and_that_of_others_does_not(sde):
    def bias(method, steps):
        row = Row("inpaint", sde, method, steps=steps)
        return difference(known_law(row), exact_law(row), exact_law(row))

    few, many = bias("tmpd", 50), bias("tmpd", 400)
    assert many.mean < 0.01 and many.covariance < 0.25 * few.covariance < 0.1
    assert max(bias("pigdm", 400)) > 0.1 and max(bias("projection", 400)) > 0.1


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_projection_is_exact_where_known_and_unknown_are_independent(noise):
    data = Law(np.array([0.4, -0.3, 0.1, 0.6]), np.diag([0.9, 0.5, 0.2, 0.4]))
    sde, seen = sdes(800)["VP"], Seen(np.eye(4)[[0, 2]], np.array([1.0, -0.5]), noise)
    exact = recursion.conditioned(data, seen)
    begin, score = recursion.start(sde, 4, seen), recursion.score_of(sde, data)
    held = recursion.predicted(sde, score, begin, recursion.hold_to(sde, seen))
    np.testing.assert_allclose(held.mean, exact.mean, atol=0.01)
    np.testing.assert_allclose(held.covariance, exact.covariance, atol=0.01)
    if noise:  # unlike what is done of a `Linear` operator
        trusting = recursion.predicted(sde, score, begin, recursion.hold_to(sde, seen, spectral=False))
        assert difference(trusting, exact, exact).mean > 0.1


def test_pigdm_is_exact_for_a_gaussian_of_its_variance():
    data, sde = Law(np.zeros(4), 0.7 * np.eye(4)), sdes()["VE"]
    seen = Seen(PROBLEMS["dense"].matrix, PROBLEMS["dense"].y, 0.3)
    guided = recursion.pigdm_score(sde, data, seen, v=0.7)(0.4)
    exact = recursion.score_of(sde, recursion.conditioned(data, seen))(0.4)
    np.testing.assert_allclose(guided.matrix, exact.matrix, atol=1e-9)
    np.testing.assert_allclose(guided.shift, exact.shift, atol=1e-9)


def test_the_law_along_the_flow_is_that_of_many_steps_of_a_fast_solver():
    flow = known_law(Row("inpaint", "VP", "tmpd", FLOW, 0))
    fast = known_law(Row("inpaint", "VP", "tmpd", "unipc_3", 200))
    np.testing.assert_allclose(fast.mean, flow.mean, atol=2e-3)
    np.testing.assert_allclose(fast.covariance, flow.covariance, atol=2e-3)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=lambda problem: problem.name)
def test_matrices_written_out_are_those_of_the_operators(problem):
    np.testing.assert_allclose(problem.matrix, matrix_of(problem), atol=1e-6)

    def observed():
        observation = problem.observation(2)
        return observation.operator.forward(jnp.ones((2, *problem.data.shape))), observation.y

    made, given = jax.eval_shape(observed)
    assert made.shape == given.shape


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "dense"])
def test_functions_of_an_operator_are_those_of_its_matrix(name):
    problem, n = PROBLEMS[name], 3
    y = problem.matrix @ np.random.default_rng(0).standard_normal((problem.matrix.shape[1], n))
    full = np.zeros((n, int(np.prod(problem.observed_shape))))
    full[:, problem.kept] = y.T
    rows = full.reshape(n, *problem.observed_shape)
    values, vectors = np.linalg.eigh(problem.matrix @ problem.matrix.T)
    expected = (vectors * np.sqrt(1 + values)) @ vectors.T @ y
    got = jax.jit(lambda rows: problem.operator(n).function(lambda g: jnp.sqrt(1 + g), rows))(rows)
    got = np.asarray(got).reshape(n, -1)
    np.testing.assert_allclose(got[:, problem.kept].T, expected, atol=1e-5)


@pytest.mark.parametrize("noise", [0.5, 0.2])
def test_the_posterior_of_a_gaussian_is_the_product_of_prior_and_likelihood_on_a_grid(noise):
    prior, matrix, y = closed.GAUSSIAN, np.array([[0.8, -0.6]]), np.array([0.7])
    axis = np.linspace(-5, 5, 801)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    offset = points - prior.mean.ravel()
    energy = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(prior.covariance), offset)
    energy += np.sum((y - points @ matrix.T) ** 2, axis=1) / noise**2
    likely = np.exp(-0.5 * energy)
    evidence = (
        likely.sum()
        * (axis[1] - axis[0]) ** 2
        / ((2 * np.pi) ** 1.5 * np.sqrt(np.linalg.det(prior.covariance)) * noise)
    )
    likely /= likely.sum()
    mean = likely @ points
    got = prior.posterior(matrix, y, noise)
    np.testing.assert_allclose(got.mean.ravel(), mean, atol=1e-8)
    np.testing.assert_allclose(got.covariance, (points - mean).T @ (likely[:, None] * (points - mean)), atol=1e-8)
    np.testing.assert_allclose(prior.log_evidence(matrix, y, noise), np.log(evidence), atol=1e-8)


def test_the_posterior_of_known_pixels_without_noise_is_by_the_blocks_of_the_precision():
    known, hidden = [0, 2], [1, 3]
    y = np.array([0.3, -0.2])
    precision, mean = np.linalg.inv(GAUSSIAN.covariance), GAUSSIAN.mean.ravel()
    got = GAUSSIAN.posterior(np.eye(4)[known], y, 0.0)
    spread = np.linalg.inv(precision[np.ix_(hidden, hidden)])
    expected = mean[hidden] - spread @ precision[np.ix_(hidden, known)] @ (y - mean[known])
    np.testing.assert_allclose(got.mean.ravel()[known], y, atol=1e-9)
    np.testing.assert_allclose(got.mean.ravel()[hidden], expected, atol=1e-9)
    np.testing.assert_allclose(got.covariance[np.ix_(hidden, hidden)], spread, atol=1e-9)
    np.testing.assert_allclose(got.covariance[known], 0, atol=1e-9)


def test_the_posterior_of_a_mixture_is_the_prior_weighted_by_the_likelihood():
    matrix, y, noise, n = PROBLEMS["dense"].matrix, np.array([0.2, -0.5]), 0.4, 400_000
    generator = np.random.default_rng(0)
    which = generator.choice(3, n, p=MIXTURE.weights)
    x = np.empty((n, 4))
    for i, (_, mean, covariance) in enumerate(closed.components(MIXTURE)):
        x[which == i] = generator.multivariate_normal(mean, covariance, int(np.sum(which == i)))
    w = np.exp(-0.5 * np.sum((y - x @ matrix.T) ** 2, axis=1) / noise**2)
    w /= w.sum()
    got = MIXTURE.posterior(matrix, y, noise)
    within = 5 / np.sqrt(1 / np.sum(w**2))  # standard errors of numbers whose spread is about 1
    np.testing.assert_allclose(got.weights, [w[which == i].sum() for i in range(3)], atol=within)
    mean = w @ x
    np.testing.assert_allclose(closed.mean(got), mean, atol=within)
    np.testing.assert_allclose(closed.covariance(got), (x - mean).T @ (w[:, None] * (x - mean)), atol=within)


def test_the_distance_of_distributions_is_of_any_number_of_dimensions():
    data, keys = PROBLEMS["mixture, inpaint"].posterior(), sample_keys(jax.random.key(0), jnp.arange(8192))
    x = np.asarray(jax.jit(data.sample)(keys), np.float64).reshape(len(keys), 4)
    assert distance(VP(), data, x, 0.0).z < 2
    twin = Gaussian(closed.mean(data).reshape(2, 2, 1), closed.covariance(data))
    assert distance(VP(), data, np.asarray(jax.jit(twin.sample)(keys)), 0.0).z > 3


@pytest.mark.parametrize("sde", SDES)
def test_an_exact_classifier_gives_the_score_of_the_class(sde):
    process = sdes()[sde]
    x, t = np.random.default_rng(0).standard_normal((6, 2, 2, 1)), np.linspace(0.2, 0.9, 6)
    plain, main = MIXTURE.model(process), MIXTURE.components[CLASS].model(process)
    for scale in (1.0, 2.0):
        by_classifier = classifier_guidance(
            process, plain, lambda x, t: MIXTURE.log_joint(process, x, t).T, jnp.full(6, CLASS), scale=scale
        )
        expected = jax.jit(extrapolation(main, plain, scale=scale))(x, t)
        for found, exact in zip(jax.jit(by_classifier)(x, t), expected, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


RECORD = Record(
    row=Row("inpaint", "VP", "pigdm"),
    samples=8192,
    error=Errors(0.17, 0.19),
    standard_error=Errors(0.01, 0.02),
    known=Errors(0.16, 0.18),
    apart=Errors(0.015, 0.03),
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(apart=Errors(0.05, 0.03)), "pigdm by reverse_diffusion 200 on VP, inpaint: mean 5.0 standard errors"),
        (dict(apart=Errors(0.015, float("nan"))), "covariance nan standard errors"),
        (dict(apart=None, error=Errors(float("nan"), 0.1)), "its mean is not finite"),
    ],
)
def test_the_table_says_what_is_missed(change, words):
    assert misses(RECORD) == ()
    [miss] = misses(RECORD._replace(**change))
    assert words in miss
    assert "MISS" in pytest.importorskip("score_sde.experiments.posterior.report").cells(
        RECORD._replace(misses=(miss,))
    )


def test_particles_that_stay_away_from_their_limit_are_missed():
    def group(*apart):
        rows = [Row("inpaint", "VP", "particles", number=k) for k in (4, 64)]
        return [RECORD._replace(row=r, apart=Errors(d, 0.0)) for r, d in zip(rows, apart, strict=True)]

    assert missed_together(group(0.2, 0.05)) == []
    assert len(missed_together(group(0.2, 0.1))) == 1
    assert len(missed_together(group(0.0, 0.2))) == 2  # nor does it fall


def test_guidances_by_one_class_that_differ_are_missed():
    rows = [Row(CLASS_PROBLEM, "VP", method, number=2) for method in ("classifier", "classifier-free")]
    records = [RECORD._replace(row=row, error=Errors(0.1, e)) for row, e in zip(rows, (0.1, 0.2), strict=True)]
    assert len(missed_together(records)) == 1


def test_every_row_is_there_once():
    rows = table(small=False)
    assert len(set(rows)) == len(rows) and set(table(small=True)) <= set(rows)


def test_the_page_holds_its_pictures(tmp_path):
    report = pytest.importorskip("score_sde.experiments.posterior.report")
    records = [
        RECORD,
        RECORD._replace(row=Row("inpaint", "VP", "tmpd")),
        RECORD._replace(row=Row("inpaint", "VP", "particles", number=4)),
        RECORD._replace(row=Row("mixture, inpaint", "VP", "dps"), known=None, apart=None),
    ]
    page = report.write_page(tmp_path, records, {"dps": np.zeros((5, 4))}, [], 1.0).read_text()
    assert page.count("<svg") == 3 and "Nothing misses." in page and "src=" not in page
    report.write_json(tmp_path, records, [], 1.0)
    assert json.loads((tmp_path / "posterior.json").read_text())["records"][0]["error"]["mean"] == 0.17
    assert len(report.text_table(records).splitlines()) == 6
