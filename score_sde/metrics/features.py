"""Features by which images are compared: a network's, with a name and a digest that identify them."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from score_sde import data
from score_sde.array_types import Array, ImageShape, PyTree, UInt8
from score_sde.config import protocols
from score_sde.config.arguments import check_arguments
from score_sde.config.import_paths import missing
from score_sde.errors import UsageError, warn
from score_sde.io.digest import digest
from score_sde.io.downloads import Download, fetch
from score_sde.io.result_cache import Arrays
from score_sde.metrics import inception, small
from score_sde.metrics.protocol import fingerprint
from score_sde.runtime.backend import expanded
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.sharding import first_goes_first, pad_to_devices, place, pmap, split

INCEPTION, TRAINED = "inception", "trained"
WEIGHTS = Download(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


class Features(NamedTuple):
    """A network's features of images, over all devices.

    name: "inception", or another name, whose distances are not called FID. digest: of the network's weights.
    dimension: d, the number of features. arrays: names of the arrays that `of` returns, float32: "features" (n, d),
    and for Inception "logits" (n, k).
    """

    name: str
    digest: str
    dimension: int
    arrays: tuple[str, ...]
    batch_size: int
    apply: Callable[[np.ndarray], Arrays] | None = None

    @check_arguments
    def of(self, pixels: UInt8[np.ndarray, "n h w c"]) -> Arrays:
        """The arrays of one image or more, computed in batches. Raises `UsageError` for images of another size."""
        if not len(pixels):
            raise UsageError("Features are of one image or more, and there is none.")
        with enough_memory(f"features at metrics.batch_size={self.batch_size}", lambda: "lower metrics.batch_size"):
            batches = [
                {name: value[:valid] for name, value in self.apply(pixels[indices]).items()}
                for indices, valid in data.padded_chunks(len(pixels), self.batch_size)
            ]
        return {name: np.concatenate([part[name] for part in batches]) for name in self.arrays}

    def by(self, network: Callable, params: PyTree) -> "Features":
        """A copy whose arrays are computed by `network(params, pixels)`, which returns a dictionary of `arrays`."""
        program, params = pmap(network, in_axes=(None, 0), out_axes=None), place(params)

        def apply(pixels: np.ndarray) -> Arrays:
            return {key: np.asarray(value) for key, value in program(params, *split(jnp.asarray(pixels))).items()}

        return self._replace(apply=apply)


def kind(name: str) -> str:
    """The name of features without the digest of their weights: trained-7bb6f4a4 is "trained"."""
    return re.sub(r"-[0-9a-f]{8}$", "", name)


@check_arguments
def inception_features(weights: str | Path, folder: Path, batch_size: Annotated[int, "[1, inf)"]) -> Features:
    """Inception-v3's features, by which FID is defined.

    weights: their PyTorch file; "" to look for it in `folder`, and download it there. Raises `UsageError` if the file
    is not available, or is another one.
    """
    if weights:
        if not (path := expanded(weights)).is_file():
            advice = f"set config.metrics.weights to a copy of {WEIGHTS.url}, or to '' to download it"
            raise UsageError(f"No file {path}; {advice}; or config.metrics.features to trained or none.")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        try:
            with first_goes_first():
                path, sha256 = fetch(WEIGHTS, folder, "config.metrics.dir"), WEIGHTS.sha256
        except UsageError as error:
            raise UsageError(f"{error} Or set config.metrics.features to trained or none.") from error
    if sha256 != WEIGHTS.sha256:
        warn(f"{path} is not the file that FID is defined by (SHA-256 {sha256}); the distance is that of its weights.")
    name = INCEPTION if sha256 == WEIGHTS.sha256 else f"{INCEPTION}-{sha256[:8]}"
    about = Features(name, sha256, inception.DIMENSION, ("features", "logits"), pad_to_devices(batch_size))
    return about.by(inception.inception, inception.load(path))


@check_arguments
def own_features(network: Any, code: str, image_shape: ImageShape, batch_size: Annotated[int, "[1, inf)"]) -> Features:
    """Features of a user's `score_sde.config.protocols.FeatureNetwork`. code: digest of the file that defines it.

    Raises `UsageError` unless the network gives `dimension` finite numbers for an image.
    """
    if lacks := missing(type(network), protocols.FeatureNetwork):
        raise UsageError(f"{type(network).__name__} is no FeatureNetwork: it lacks {', '.join(lacks)}.")
    params, name = network.init(image_shape), type(network).__name__

    def apply(params: PyTree, pixels: Array) -> dict[str, Array]:
        return {"features": jnp.asarray(network(params, pixels), jnp.float32)}

    number = fingerprint({"code": code, "params": digest(params), "arguments": repr(vars(network))})
    about = Features(f"{name}-{number[:8]}", number, network.dimension, ("features",), pad_to_devices(batch_size))
    features = about.by(apply, params).of(np.zeros((1, *image_shape), np.uint8))["features"]
    if features.shape != (1, network.dimension) or not np.isfinite(features).all():
        raise UsageError(
            f"metrics.features={name} gives numbers of shape {features.shape[1:]} for a black image, or some that are "
            f"not finite; its dimension says {network.dimension}."
        )
    return about.by(apply, params)


@check_arguments
def trained_features(
    source: data.Source, options: small.Options, folder: Path, batch_size: Annotated[int, "[1, inf)"]
) -> Features:
    """Features of a small network trained on the data set, now or by an earlier call; it is kept in `folder`.

    A training that is stopped goes on with the next call. If two calls run at once, one trains and the other waits.
    """
    task, params = small.task_of(source), small.trained(options, source, folder)
    number = digest(params)

    def apply(params: PyTree, pixels) -> dict:
        return {"features": small.features(options, task, params, pixels)}

    name, size = f"{TRAINED}-{number[:8]}", pad_to_devices(batch_size)
    return Features(name, number, options.dimension, ("features",), size).by(apply, params)
