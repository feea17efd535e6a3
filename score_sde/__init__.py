"""Score-based generative modelling through stochastic differential equations, in JAX."""

__version__ = "0.1.0"


def load(workdir, step=None):
    """The model trained in `workdir`: see `score_sde.trained.Trained`."""
    from score_sde.trained import load

    return load(workdir, step)
