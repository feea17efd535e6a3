r"""An upper bound on -log p by denoising score matching (Song, Durkan, Murray and Ermon, 2021, theorem 3).

p is the density of the samples of the reverse SDE dx = (f x - g^2 score) dt + g dw, and with x_t = m x + s z

    -log p(x)  <=  KL(x_1 || prior) + 1/2 \int_eps^1 (g/s)^2 E R(t) dt + E -log p(x | x_eps),    (1)

    R(t) = |z - E[eps | x_t]|^2,

for every scalar process. It is an equality where the score is exact. It need not be above -log p of the
probability-flow ODE, which is another model where the score is not exact. Four facts keep the code short:

- The prior's term is a KL divergence of Gaussians.
- (g/s)^2 dt is twice the differential of log noise_level(t). Importance sampling, with density proportional to
  (g/s)^2, therefore draws log noise_level uniformly: `process.time` is the inverse distribution function, and the
  integral is log(noise_level(1) / noise_level(eps)) times the mean of R over these times.
- Where alpha(1) = 0 log noise_level has no end; the model then starts at `noisiest_time`, from the prior of time 1.
- As in that paper, x is decoded from x_eps by the Gaussian of Tweedie's mean (x_eps + s^2 score) / m and of std s / m
  =: n, so that -log p(x | x_eps) = D/2 log(2 pi n^2) + R(eps) / 2.

Images of 256 levels must be dequantized (`score_sde.likelihood.dequantization`) before they come here.
"""

import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Keys, ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments
from score_sde.process import LEAST_TIME, Eps, Model, Process, check_scalar
from score_sde.randomness import Stream, expand, normal, stream, uniform
from score_sde.sampling.solver import predict

Bound = Callable[[Keys, ModelImages], PerSample]


@check_arguments
def likelihood_bound(
    process: Process, model: Model, *, num_times: Annotated[int, "[1, 16777216]"] = 1, eps: Eps = LEAST_TIME
) -> Bound:
    """A function (keys, images in model range) -> bits/dim (b,); their mean over keys is at least -log2 p(x) / D.

    num_times: times drawn for each image, one in each of that many equal slices of log noise_level. Each takes one
    evaluation of the network, and one more is made at eps. eps: the time where the integral starts, in (0, 1).
    Raises `UsageError` unless num_times >= 1 and 0 < eps < 1, and for schedules that differ from pixel to pixel.

        import jax
        import numpy as np
        from score_sde.likelihood.bound import likelihood_bound
        from score_sde.oracles import Gaussian
        from score_sde.sde import VP

        data, process, keys = Gaussian(np.zeros((2, 2, 1)), 0.25), VP(), jax.random.split(jax.random.key(0), 2)
        bits = likelihood_bound(process, data.model(process), num_times=4)(keys, data.sample(keys))
    """
    check_scalar(process, "The bound, which draws times by their noise level,", "compute bits/dim by the ODE")
    last = process.noisiest_time
    low, high = (np.log(process.noise_level(np.array([t]))).item() for t in (eps, last))

    def residual(keys: Keys, x: ModelImages, t: Times) -> PerSample:
        """An estimate of R(t) with less variance: a multiple of |z|^2 - D, whose mean is 0, is subtracted.

        The multiple is the share that |z|^2 would have in R if x came from Gaussian data of x's own mean square.
        """
        z = normal(stream(keys, Stream.NOISE), x.shape[1:])
        x_t = expand(process.alpha(t), x) * x + expand(process.sigma(t), x) * z
        r = z - predict(model, x_t, t).eps
        share = (1 + jnp.square(process.noise_level(t)) / _mean_square(x)) ** -2.0
        return math.prod(x.shape[1:]) * (_mean_square(r) - share * (_mean_square(z) - 1))

    @check_arguments
    def bound(keys: Keys, x: ModelImages) -> PerSample:
        d = math.prod(x.shape[1:])
        offsets, steps = uniform(stream(keys, Stream.TIME)), stream(keys, Stream.STEPS)

        def slice_residual(number):
            level = low + (high - low) * (number + offsets) / num_times
            t = jnp.clip(process.time(jnp.exp(level)), eps, last)
            return residual(stream(steps, number), x, t)

        integral = (high - low) * jnp.mean(jax.lax.map(slice_residual, jnp.arange(num_times, dtype=jnp.int32)), axis=0)
        decoder = d * (0.5 * math.log(2 * math.pi) + low) + 0.5 * residual(keys, x, jnp.full(len(x), eps, x.dtype))
        return (_prior_divergence(process, x) + integral + decoder) / (math.log(2) * d)

    return bound


def _prior_divergence(process: Process, x: ModelImages) -> PerSample:
    """KL(N(alpha x, sigma^2) || N(0, prior_std^2)) at the process's noisiest time, in nats."""
    at = np.full(1, process.noisiest_time)
    m, s = (f(at).item() / process.prior_std for f in (process.alpha, process.sigma))
    return 0.5 * math.prod(x.shape[1:]) * (s**2 + m**2 * _mean_square(x) - 1 - 2 * math.log(s))


def _mean_square(x: ModelImages) -> PerSample:
    return jnp.mean(jnp.square(x), axis=tuple(range(1, x.ndim)))
