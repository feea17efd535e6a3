"""Options of samplers in `config.sampling`, by method: those that a constructor takes, and those with an effect."""

from collections.abc import Callable
from typing import Any

from score_sde.config import protocols
from score_sde.config.import_paths import arguments, choose, is_import_path, lowered, missing
from score_sde.errors import UsageError
from score_sde.sampling import SAMPLERS, Solver
from score_sde.training.pieces import KINDS, piece_arguments

Method = str | Callable[..., Solver]  # a row of SAMPLERS, an import path, or a function as `protocols.Sampler`

# The keys of config.sampling that a method's constructor takes, besides those that all take.
OPTIONS = {
    "pc": ("predictor", "corrector", "snr", "n_steps_each", "probability_flow", "diffusion"),
    "ode": ("rtol", "atol", "ode_method"),
    "adaptive": ("sde_rtol", "sde_atol", "diffusion"),
}
FAST_OPTIONS = ("num_steps", "grid", "rho", "eta", "s_churn", "s_min", "s_max", "s_noise", "diffusion")
PASSED = KINDS["sampling.method"].passed  # arguments that are no options of a single method


def method_named(method: Method) -> Method:
    """The method as the dictionaries have it, in lower case; an import path and a function as they are."""
    return lowered(method) if isinstance(method, str) else method


def sampler_named(method: Method) -> Callable[..., Solver]:
    """The sampler of `sampling.method`. Raises `UsageError` for an unknown name, and for a function that is none."""
    if isinstance(method, str):
        return choose("sampling.method", method, SAMPLERS, protocols.Sampler)
    if not callable(method) or (lacks := missing(method, protocols.Sampler)):
        lacking = f": it lacks {', '.join(lacks)}" if callable(method) else ""
        raise UsageError(
            f"{method!r} is no sampler{lacking}; give the name of one, or a function as score_sde.config.protocols."
            "Sampler shows."
        )
    return method


def is_own(method: Method) -> bool:
    """Whether the method is a user's own: an import path, or a function."""
    return not isinstance(method, str) or is_import_path(method)


def sampling_options(sampling: Any, method: Method) -> tuple[str, ...]:
    """Names of the options in config.sampling on which samples by this method depend, given the other options."""
    common = ("eps", "start_time", "noise_removal", "temperature", "precision", "clip")
    common += ("clip_quantile",) if clip_of(sampling, method) == "dynamic" else ()
    if method == "pc":
        corrects = ("snr", "n_steps_each") if sampling["corrector"].lower() != "none" else ()
        predicts = ("probability_flow", "diffusion") if sampling["predictor"].lower() != "none" else ()
        return (*common, "predictor", "corrector", "num_scales", *corrects, *predicts)
    if is_own(method):
        return (*common, *_own_arguments(sampling, method))
    if method in ("ode", "adaptive"):
        return (*common, *OPTIONS[method])
    own = {
        "ddim": ("eta",),
        "dpmpp_2m_sde": ("diffusion",),
        "edm_stochastic": ("s_churn", "s_min", "s_max", "s_noise"),
    }.get(method, ())
    return (*common, "num_steps", "grid", *(("rho",) if sampling["grid"] == "karras" else ()), *own)


def constructor_options(sampling: Any, method: Method, level: float) -> dict[str, Any]:
    """The keyword arguments of a method's constructor, as config.sampling says.

    level: one of 256 levels, in model range. Raises `UsageError` for combinations that are not defined.
    """
    if sampling.batch_size == 0 and method == "pc" and sampling.corrector.lower() == "langevin":
        raise UsageError(
            "The paper's Langevin corrector couples the samples of a batch, so they would depend on how many fit "
            "in memory; set sampling.batch_size, or sampling.corrector=langevin_per_sample."
        )
    if method in ("ode", "adaptive") and sampling.precision == "bfloat16":
        raise UsageError(
            f"sampling.method={method} chooses its steps by errors that bfloat16 does not resolve; set "
            "sampling.precision to tf32 or float32, or choose a method of fixed steps."
        )
    common = dict(eps=sampling.eps, noise_removal=sampling.noise_removal)
    common |= {"start_time": sampling.start_time} if sampling.start_time != 1 else {}
    if is_own(method):
        if "start_time" in common and "start_time" not in arguments(sampler_named(method)):
            raise UsageError(
                f"The sampler {name_of(method)} begins at t = 1; give it a keyword argument start_time, or leave "
                "sampling.start_time at 1."
            )
        return _own_arguments(sampling, method) | common
    options = {key.removeprefix("sde_"): sampling[key] for key in OPTIONS.get(method, FAST_OPTIONS)}
    if method == "pc":
        options |= {key: options[key].lower() for key in ("predictor", "corrector")}
    if method == "adaptive" and options["atol"] is None:
        options["atol"] = level
    return options | common


def solves_ode(sampling: Any, method: Method) -> bool:
    """Whether a method, as config.sampling sets it, solves the probability-flow ODE and adds no noise on the way.

    Such a sampler needs only the velocity, which is right for every coupling of images and noise. One of the user's own
    says so by an attribute `solves_ode = True`.
    """
    if is_own(method):
        return bool(getattr(sampler_named(method), "solves_ode", False))
    if method == "pc":
        predicts = sampling["predictor"].lower() != "none" and sampling["corrector"].lower() == "none"
        return predicts and (sampling["probability_flow"] or sampling["diffusion"] == 0)
    option = {
        "adaptive": "diffusion",
        "ddim": "eta",
        "dpmpp_2m_sde": "diffusion",
        "edm_stochastic": "s_churn",
    }.get(method)
    return option is None or sampling[option] == 0


def clip_of(sampling: Any, method: Method) -> str:
    """The name in `CLIPPINGS` of the clipping for this method.

    By default the samplers of the paper's code do not clip.
    """
    return sampling["clip"].lower() or ("none" if method in ("pc", "ode") else "range")


def name_of(method: Method) -> str:
    """The name of a method, for messages."""
    return method if isinstance(method, str) else getattr(method, "__name__", "given")


def _own_arguments(sampling: Any, method: Method) -> dict[str, Any]:
    """The values of config.sampling that a user's own sampler takes as arguments."""
    if isinstance(method, str):
        return piece_arguments("sampling.method", method, sampling)
    return {name: sampling[name] for name in arguments(method, PASSED) if name in sampling}
