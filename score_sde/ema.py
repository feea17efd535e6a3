"""Exponential moving averages of the weights: named profiles of the average's rate beta_n at update n = 1, 2, ...

The average after update n is beta_n times the average before plus (1 - beta_n) times the new weights.

| profile                    | beta_n                         | from                                                 |
|----------------------------|--------------------------------|------------------------------------------------------|
| `constant:RATE`            | RATE                           | the paper's JAX code                                 |
| `ramp:RATE`                | min(RATE, (1 + n) / (10 + n))  | the paper's PyTorch code, and the default            |
| `half_life:UPDATES[,RAMP]` | 0.5^(1 / min(UPDATES, RAMP n)) | EDM (Karras et al. 2022), which counts images        |
| `power:SIGMA_REL`          | (1 - 1/n)^(gamma + 1)          | EDM2 (Karras et al. 2024), see `gamma`               |

A run keeps one average or several. A training state holds the tree of a single average as it is, and several averages
as a dictionary from names to trees, so that checkpoints with one average keep their form.

    from score_sde import ema

    profile = ema.parse("power:0.05")
    shares = ema.weights(profile, 1000)  # of the initial weights and of those after each update; their sum is 1
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Int, PyTree
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError, one_of

Updates = Annotated[Float[Array, "..."] | Float[np.ndarray, "..."] | np.floating, "[1, inf)"]  # 1, 2, ...
Rate = Annotated[float, "[0, 1)"]
Width = Annotated[float, "[0.0001, 0.2886]"]  # below, no average; at 1 / sqrt(12) all updates weigh the same


class Profile(abc.ABC):
    """Base class: the rate of an average, a dataclass of the numbers in its name. form: their form, for messages."""

    form: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Profile)

    @property
    def name(self) -> str:
        """The profile's name in the config, with all numbers written out: `half_life:2000,0.05`."""
        kind = next(kind for kind, cls in PROFILES.items() if cls is type(self))
        return f"{kind}:{','.join(f'{value:.12g}' for value in dataclasses.astuple(self))}"

    @abc.abstractmethod
    def shares(self, n: Updates) -> tuple[Any, Any]:
        """Shares beta_n of the average and 1 - beta_n of the new weights, each to the precision of n.

        n: number of the update from 1, a float array of NumPy or JAX. Each share has n's shape and type, or is a float.
        """


@check_arguments
@dataclasses.dataclass(frozen=True)
class Constant(Profile):
    """A constant rate, in [0, 1); 0 is no averaging."""

    rate: Rate
    form = "RATE with RATE in [0, 1)"

    def shares(self, n: Any) -> tuple[Any, Any]:
        return self.rate, 1 - self.rate


@check_arguments
@dataclasses.dataclass(frozen=True)
class Ramp(Constant):
    """A rate that rises to a constant one, so that the first weights are forgotten, however short the run."""

    def shares(self, n: Any) -> tuple[Any, Any]:
        kept = n.__array_namespace__().minimum(self.rate, (1 + n) / (10 + n))
        return kept, 1 - kept


@check_arguments
@dataclasses.dataclass(frozen=True)
class HalfLife(Profile):
    """The number of updates after which a weight has halved: `updates`, or `ramp` times the updates so far if less.

    EDM counts images: a half-life of 500,000 at batch size 512 is one of 976.5625 updates. In the ramp it takes the
    rate of the update before, so that its first average is the first weights.
    """

    updates: Annotated[float, "(0, inf)"]
    ramp: Annotated[float, "(0, inf]"] = 0.05
    form = "UPDATES[,RAMP] with both positive"

    def shares(self, n: Any) -> tuple[Any, Any]:
        xp = n.__array_namespace__()
        new = -xp.expm1(math.log(0.5) / xp.minimum(self.updates, self.ramp * n))
        return 1 - new, new


@check_arguments
@dataclasses.dataclass(frozen=True)
class Power(Profile):
    """A power-function average: after T updates, the weight of update s is (s^(g+1) - (s-1)^(g+1)) / T^(g+1).

    g is `gamma(sigma_rel)`, so that the width of the average grows with the run (Karras et al. 2024, section 3.1).
    """

    sigma_rel: Width
    form = "SIGMA_REL with SIGMA_REL in [0.0001, 0.2886]"

    def shares(self, n: Any) -> tuple[Any, Any]:
        xp = n.__array_namespace__()
        with np.errstate(divide="ignore"):  # at the first update: the initial weights are forgotten
            new = -xp.expm1((gamma(self.sigma_rel) + 1) * xp.log1p(-1 / n))
        return 1 - new, new


@check_arguments
def gamma(sigma_rel: Annotated[float, "(0, 0.288675134]"]) -> float:
    """The exponent of a power-function average whose standard deviation is the fraction `sigma_rel` of the run.

    It is the positive root of g^3 + 7 g^2 + (16 - s^-2) g + (12 - s^-2) = 0, s = sigma_rel in (0, 1 / sqrt(12)); Karras
    et al. (2024), appendix C.
    """
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@check_arguments
def weights(profile: Profile, updates: Annotated[int, "[1, 1e8]"]) -> np.ndarray:
    """Weights in the average after `updates` >= 1 updates, float64 (updates + 1,), which add up to 1.

    The first belongs to the initial parameters, the others to the parameters after each update.
    """
    n = np.arange(1, updates + 1, dtype=np.float64)
    kept, new = (np.broadcast_to(share, n.shape) for share in profile.shares(n))
    after = np.cumprod(np.append(kept, 1.0)[::-1])[::-1]  # the share that all later updates keep
    return after * np.append(1.0, new)


Profiles = tuple[Profile, ...]


@check_arguments
def parse(text: str) -> Profile:
    """The profile that a string like `power:0.05` names. Raises `UsageError` for other strings."""
    kind, _, numbers = text.partition(":")
    cls = PROFILES[one_of("profile of an average (ema.profiles)", kind, PROFILES)]
    try:
        return cls(*(float(number) for number in numbers.split(",")))
    except ValueError:  # also a UsageError: too many numbers, none, or one that is out of range
        raise UsageError(f"The average '{text}' cannot be read; write {kind}:{cls.form}.") from None


@check_arguments
def profiles_of(names: Sequence[Any], rate: float, schedule: str) -> Profiles:
    """The profiles of a run; the first of them is the default everywhere.

    names: `ema.profiles`. rate, schedule: `optim.ema_rate` and `ema_schedule`, the shorthand for a single profile that
    is used where there are no names. Raises `UsageError`.
    """
    if not names:
        return (SHORTHAND[one_of("optim.ema_schedule", schedule, SHORTHAND)](rate),)
    profiles = tuple(parse(str(name)) for name in names)
    for i, profile in enumerate(profiles):
        if profile in profiles[:i]:
            raise UsageError(f"ema.profiles has {profile.name} twice; name each average once.")
    return profiles


@check_arguments
def chosen(profiles: Profiles, name: str = "") -> Profile:
    """The profile with this name, by default the first. Raises `UsageError` if there is none."""
    if not name and profiles:
        return profiles[0]
    for profile in profiles:
        if name == profile.name or (name.partition(":")[0] in PROFILES and parse(name) == profile):
            return profile
    raise UsageError(f"There is no average '{name}'; this run has {', '.join(p.name for p in profiles) or 'none'}.")


@check_arguments
def is_after_the_fact(names: Sequence[Any], name: str) -> bool:
    """Whether the average `name` is not one of `ema.profiles`, names, and is to be made of these."""
    profiles = tuple(parse(str(each)) for each in names)
    return bool(name) and bool(profiles) and wanted(profiles, name) not in profiles


@check_arguments
def check(names: Sequence[Any], rate: float, schedule: str, name: str) -> None:
    """Raises `UsageError` unless the arguments of `profiles_of` are valid, and `wanted` takes the name."""
    wanted(profiles_of(names, rate, schedule), name)


@check_arguments
def wanted(profiles: Profiles, name: str = "") -> Profile:
    """The profile with this name: one of the run's, or a power one that can be made of the run's after the fact.

    Raises `UsageError` if there is neither.
    """
    if name.partition(":")[0] == "power" and any(isinstance(profile, Power) for profile in profiles):
        return next((profile for profile in profiles if profile == parse(name)), parse(name))
    return chosen(profiles, name)


@check_arguments
def initial(profiles: Profiles, params: PyTree) -> PyTree:
    """The averages before the first update: copies of the initial parameters, because a step donates all buffers."""
    return _kept([(profile.name, jax.tree.map(jnp.copy, params)) for profile in profiles])


@check_arguments
def updated(profiles: Profiles, averages: PyTree, params: PyTree, n: Annotated[Int[Array, ""], "[1, inf)"]) -> PyTree:
    """The averages after update n = 1, 2, ..., which made `params`."""

    def one(profile: Profile) -> PyTree:
        kept, new = profile.shares(n.astype(jnp.float32))

        # The paper's sum, whose shares add up to 1 but for rounding: at a rate of 0.9999 a weight that stays the same
        # has an average that is 1.7e-4 smaller.
        def as_in_the_paper(ema: Array, p: Array) -> Array:
            return kept * ema + new * p

        def exact(ema: Array, p: Array) -> Array:
            return ema + new * (p - ema)

        combined = as_in_the_paper if isinstance(profile, Constant) else exact
        return jax.tree.map(combined, average(profiles, averages, profile), params)

    return _kept([(profile.name, one(profile)) for profile in profiles])


def _kept(trees: list[tuple[str, PyTree]]) -> PyTree:
    """The trees by name, or the only one as it is."""
    if not trees:
        raise UsageError("There is no profile of an average; a run has one or more.")
    return dict(trees) if len(trees) > 1 else trees[0][1]


@check_arguments
def average(profiles: Profiles, averages: PyTree, profile: Profile) -> PyTree:
    """The average of one profile, a tree of parameters."""
    return averages[profile.name] if len(profiles) > 1 else averages


PROFILES: dict[str, type[Profile]] = {"constant": Constant, "ramp": Ramp, "half_life": HalfLife, "power": Power}
SHORTHAND: dict[str, type[Constant]] = {"ramp": Ramp, "constant": Constant}  # by optim.ema_schedule
