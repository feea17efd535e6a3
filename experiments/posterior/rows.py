"""The rows of the table: a problem, an SDE, a method and a sampler; how each is run, and its known law."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from score_sde.experiments.posterior import recursion
from score_sde.experiments.posterior.problems import MIXTURE, PROBLEMS, STEPS, sdes
from score_sde.experiments.posterior.recursion import Law, Seen

from score_sde.array_types import ModelImages
from score_sde.conditioning import GUIDES, Linear, Options, classifier_guidance, extrapolation, particles, projection
from score_sde.oracles import Gaussian, Oracle
from score_sde.process import Process
from score_sde.sampling import PREDICTORS, Solver, fast_solver, predictor_corrector, probability_flow

PREDICTOR = "reverse_diffusion"
FLOW = "probability_flow"
CLASS_PROBLEM, CLASS = "mixture, class", 1  # which component is asked for
PARTICLES = {2: 8192, 4: 8192, 16: 2048, 64: 1024}  # how many -> samples
SAMPLES = 8192
# The published step of 1 is for 10^5 numbers. Of 0.003, 0.01, ..., 1 these have about the least error at N = 200.
DPS_STEP = {"VP": 0.05, "sub-VP": 0.05, "VE": 0.02}


class Row(NamedTuple):
    problem: str
    sde: str
    method: str  # projection, dps, pigdm, tmpd, particles, own score, classifier, classifier-free
    sampler: str = PREDICTOR  # or another predictor; a fast solver; the flow
    steps: int = STEPS
    number: int = 0  # of particles; or the scale of a class's guidance

    @property
    def samples(self) -> int:
        return PARTICLES[self.number] if self.method == "particles" else SAMPLES

    @property
    def predicts(self) -> bool:
        return self.sampler in PREDICTORS

    @property
    def process(self) -> Process:
        return sdes(self.steps if self.predicts else STEPS)[self.sde]

    @property
    def label(self) -> str:
        return " ".join([self.method, *([str(self.number)] if self.number else [])])

    def __str__(self) -> str:
        return f"{self.label} by {self.sampler} {self.steps} on {self.sde}, {self.problem}"


def truth(problem: str) -> Oracle:
    """The distribution that samples should be from."""
    return MIXTURE.components[CLASS] if problem == CLASS_PROBLEM else PROBLEMS[problem].posterior()


def solver(row: Row, n: int) -> tuple[Solver, Callable[[ModelImages], ModelImages]]:
    """The solver of n samples, and a function that x_T goes through first."""
    sde, start, project = row.process, _same, None
    if row.problem == CLASS_PROBLEM:
        return predictor_corrector(sde, _class_model(row, sde, n), predictor=row.sampler), start
    problem = PROBLEMS[row.problem]
    model = problem.data.model(sde)
    options = Options(step=DPS_STEP[row.sde], num_steps=row.steps or None)
    if row.method == "particles":
        observation = problem.observation(n * row.number)
        return particles(sde, model, observation, options, num_particles=row.number, predictor=row.sampler), start
    observation = problem.observation(n)
    if row.method == "projection":
        start, project = projection(sde, observation)
    elif row.method == "own score":
        model = problem.posterior().model(sde)
    else:
        model = GUIDES[row.method](sde, model, observation, options)
    if row.sampler == FLOW:
        return probability_flow(sde, model), start
    if row.predicts:
        return predictor_corrector(sde, model, predictor=row.sampler, project=project), start
    return fast_solver(sde, model, name=row.sampler, num_steps=row.steps, project=project), start


def _same(x: ModelImages) -> ModelImages:
    return x


def _class_model(row: Row, sde: Process, n: int):
    plain, main = MIXTURE.model(sde), MIXTURE.components[CLASS].model(sde)
    if row.method == "classifier-free":
        return extrapolation(main, plain, scale=float(row.number))

    def logits(x, t):
        return MIXTURE.log_joint(sde, x, t).T

    return classifier_guidance(sde, plain, logits, jnp.full(n, CLASS), scale=float(row.number))


@functools.cache
def known_law(row: Row) -> Law | None:
    """The exact law of what the row samples; of particles, in the limit of many. None where none is known."""
    sde = row.process
    if row.problem == CLASS_PROBLEM:
        if row.number != 1:
            return None
        data = _law_of(MIXTURE.components[CLASS])
        return recursion.predicted(sde, recursion.score_of(sde, data), recursion.start(sde, 4))
    problem = PROBLEMS[row.problem]
    if not isinstance(problem.data, Gaussian) or row.method == "dps":
        return None
    data, seen = _law_of(problem.data), Seen(problem.matrix, problem.y, problem.noise)
    hold, begin = None, recursion.start(sde, len(data.mean))
    if row.method == "particles":
        return recursion.particles_limit(sde, data, seen, predictor=row.sampler)
    score = recursion.score_of(sde, data)
    if row.method == "projection":
        spectral = not isinstance(problem.operator(1), Linear)
        hold, begin = recursion.hold_to(sde, seen, spectral), recursion.start(sde, len(data.mean), seen)
    elif row.method == "pigdm":
        score = recursion.pigdm_score(sde, data, seen)
    else:
        score = recursion.score_of(sde, recursion.conditioned(data, seen))
    if row.sampler == FLOW:
        return recursion.flowed(sde, recursion.conditioned(data, seen), begin)
    if row.predicts:
        return recursion.predicted(sde, score, begin, hold, row.sampler)
    return recursion.tabulated_law(sde, row.sampler, row.steps, score, begin, hold)


def _law_of(data: Gaussian) -> Law:
    return Law(data.mean.ravel(), data.covariance)


METHODS = ("projection", "dps", "pigdm", "tmpd")
SDES = tuple(sdes())
GUIDED = "inpaint"  # the problem of all comparisons of samplers
LENGTHS = (50, STEPS, 800)  # N, of which the error is measured
FAST = (("unipc_3", 20), ("unipc_3", 80), ("dpmpp_2m", 20), ("dpmpp_2m", 80))
PICTURED, PICTURED_SDE = "mixture, inpaint", "VP"


def table(small: bool) -> list[Row]:
    return _small() if small else _full()


def _full() -> list[Row]:
    product = itertools.product
    rows = [Row(p, s, m) for p, s, m in product((GUIDED, "inpaint, no noise", "dense"), SDES, METHODS)]
    turns = zip(("average", "blur", "sense", "grey"), itertools.cycle(SDES), strict=False)
    rows += [Row(p, s, m) for (p, s), m in product(turns, METHODS)]
    rows += [Row(GUIDED, s, "particles", number=k) for s, k in product(SDES, PARTICLES)]
    rows += [Row("inpaint, no noise", "VP", "particles", number=k) for k in PARTICLES]
    rows += [Row(GUIDED, s, "tmpd", steps=n) for s, n in product(SDES, LENGTHS) if n != STEPS]
    others = (("VP", "ancestral_sampling"), ("sub-VP", "euler_maruyama"), ("VE", "ancestral_sampling"))
    rows += [Row(GUIDED, s, m, sampler) for (s, sampler), m in product(others, ("projection", "tmpd"))]
    rows += [Row(GUIDED, s, "tmpd", sampler, n) for s, (sampler, n) in product(SDES, FAST)]
    rows += [Row(GUIDED, s, "tmpd", FLOW, 0) for s in SDES]
    rows += [Row(GUIDED, s, "projection", "dpmpp_2m", n) for s, n in product(SDES, (20, 80))]
    for problem, of in ((PICTURED, SDES), ("mixture, average", ("VP",))):
        rows += [Row(problem, s, m) for s, m in product(of, (*METHODS, "own score"))]
        rows += [Row(problem, s, "particles", number=k) for s, k in product(of, PARTICLES)]
    both = ("classifier", "classifier-free")
    return rows + [Row(CLASS_PROBLEM, s, m, number=w) for s, w, m in product(SDES, (1, 2), both)]


def _small() -> list[Row]:
    rows = [Row(GUIDED, s, m) for s, m in (("VP", "projection"), ("VE", "pigdm"), ("sub-VP", "tmpd"), ("VP", "dps"))]
    rows += [Row(GUIDED, "VP", "particles", number=k) for k in (4, 16)]
    rows += [Row(GUIDED, "VP", "tmpd", "unipc_3", 20), Row(PICTURED, "VP", "tmpd")]
    return [*rows, Row(CLASS_PROBLEM, "VP", "classifier", number=1)]
