"""Score-based generative modelling through stochastic differential equations, in JAX."""

from score_sde.backend import configure

__version__ = "0.3.0"

configure()


def load(workdir, step=None, *, ema=True):
    """The model trained in `workdir`, of its last checkpoint or of `step`: see `score_sde.pretrained.Pretrained`.

    ema: False for the raw weights; the name of an average, where a run has several; see `score_sde.ema`.
    """
    from score_sde.pretrained import load

    return load(workdir, step, ema=ema)


def load_classifier(workdir, step=None):
    """The noise-conditional classifier in `workdir`: see `score_sde.snapshots.PretrainedClassifier`."""
    from score_sde.snapshots import load_classifier

    return load_classifier(workdir, step)


RENAMED = {
    "Trained": "score_sde.pretrained.Pretrained",
    "TrainedClassifier": "score_sde.snapshots.PretrainedClassifier",
    "Loaded": "score_sde.snapshots.Snapshot",
    "trained": "score_sde.pretrained",
    "loaded": "score_sde.snapshots",
}


def __getattr__(name):
    if name in RENAMED:  # an AttributeError's text would be lost in `from score_sde import`
        raise ImportError(f"score_sde.{name} is now {RENAMED[name]}.")
    raise AttributeError(f"module 'score_sde' has no attribute '{name}'")
