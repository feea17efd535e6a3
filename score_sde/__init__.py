"""Score-based generative modelling through stochastic differential equations, in JAX."""

from score_sde.errors import takes_its_arguments
from score_sde.runtime import clone, moved
from score_sde.runtime.backend import configure
from score_sde.runtime.backend import start as _start

__version__ = "0.13.1"

clone.register()
moved.register()


@takes_its_arguments
def train(config, workdir, overrides=None, allowed=()):
    """Trains in `workdir` as `--mode=train` does, from its last checkpoint if it has one, and returns the model.

    Args:
        config: a config, such as `score_sde.configs.vp.digits_ddpmpp_continuous.get_config()`, changed as you like;
            None to go on with the workdir's own.
        workdir: the folder of the run.
        overrides: values of it that are set and kept with the run as those of a command line are,
            {"training.n_iters": 2000}; NumPy's and JAX's numbers and arrays are taken as well.
        allowed: keys that may differ from the workdir's, as of `--allow_change`.

    Returns the result of `load(workdir)`, for a classifier that of `load_classifier(workdir)`. Raises `UsageError` for
    a run that cannot be trained, before anything is written; `score_sde.runtime.preemption.Stopped` after Ctrl-C or
    SIGTERM, with a last checkpoint: the same call goes on from there.

        import score_sde
        from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

        model = score_sde.train(get_config(), "runs/digits", {"training.n_iters": 1000})
        model = score_sde.train(None, "runs/digits", {"training.n_iters": 2000})  # goes on
    """
    configure()
    _start()
    from score_sde.cli.command_line import name_or_set, names_first, value_of
    from score_sde.config import AnyConfig, Config
    from score_sde.errors import UsageError
    from score_sde.io.workdir import stored_config
    from score_sde.models import CLASSIFIERS
    from score_sde.runtime.backend import expanded
    from score_sde.training.run import train

    config = stored_config(expanded(workdir)) if config is None else config
    if not isinstance(config, AnyConfig):
        raise UsageError(f"config={config!s:.60} is no config; get_config() of score_sde.configs.NAME makes one.")
    config = config if isinstance(config, Config) else Config(config)
    if not isinstance(overrides or {}, dict) or not all(isinstance(key, str) for key in overrides or {}):
        raise UsageError(f"overrides={overrides!s:.60} is no dictionary of keys, as 'training.n_iters', and values.")
    for key, value in names_first(overrides or {}):
        name_or_set(config, key, value)
    kept = {key: value_of(config, key) for key in overrides or {}}  # as plain values, which launch.json can hold
    train(config, workdir, kept, allowed.split(",") if isinstance(allowed, str) else allowed)
    return (load_classifier if config.model.name in CLASSIFIERS else load)(workdir)


@takes_its_arguments
def load(workdir, step=None, *, ema=True):
    """The model trained in `workdir`: a `score_sde.inference.pretrained.Pretrained`.

    step: of the checkpoint; default the last. ema: True for averaged weights, False for the raw ones; the name of an
    average, where a run has several; see `score_sde.ema`. A number, as 0.075, is the width of a power average, which is
    made after the fact if the run did not keep it.
    Raises `UsageError` where there is no such checkpoint or average.

        import jax
        import score_sde

        model = score_sde.load("runs/digits")
        images = model.sample(jax.random.key(0), 4, "dpmpp_2m", num_steps=5)  # in [0, 1]
    """
    configure()
    _start()
    from score_sde.inference.pretrained import load

    return load(workdir, step, ema=ema)


@takes_its_arguments
def load_classifier(workdir, step=None):
    """The noise-conditional classifier in `workdir`: a `score_sde.inference.snapshots.PretrainedClassifier`.

    step: of the checkpoint; default the last. Raises `UsageError` where there is none.

        import jax
        import jax.numpy as jnp
        import score_sde

        classifier = score_sde.load_classifier("runs/digits/classifier")
        x = jnp.zeros((2, *classifier.image_shape))
        p = jax.nn.softmax(classifier.logits(x, 0.5))  # of each class at x_t
    """
    configure()
    _start()
    from score_sde.inference.snapshots import load_classifier

    return load_classifier(workdir, step)


def __getattr__(name):
    if name in moved.MOVED:  # an AttributeError's text would be lost in `from score_sde import`
        raise ImportError(moved.answer(name))
    raise AttributeError(f"module 'score_sde' has no attribute '{name}'")
