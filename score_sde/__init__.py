"""Score-based generative modelling through stochastic differential equations, in JAX."""

from score_sde.backend import configure

__version__ = "0.3.0"

configure()


def load(workdir, step=None, *, ema=True):
    """The model trained in `workdir`, of its last checkpoint or of `step`: see `score_sde.trained.Trained`.

    ema: False for the raw weights; the name of an average, where a run has several; see `score_sde.ema`.
    """
    from score_sde.trained import load

    return load(workdir, step, ema=ema)


def load_classifier(workdir, step=None):
    """The noise-conditional classifier in `workdir`: see `score_sde.loaded.TrainedClassifier`."""
    from score_sde.loaded import load_classifier

    return load_classifier(workdir, step)
