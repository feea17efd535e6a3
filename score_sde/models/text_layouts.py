"""Layouts of published text encoders: the features that their tensors, by published name, compute of tokens.

| layout                                    | `model_type` in config.json | network                                   |
|-------------------------------------------|-----------------------------|-------------------------------------------|
| `BERT` (Devlin et al., 2018), also MiniLM | bert                        | normalised after each sum; learned places |
| `CLIP` text tower (Radford et al., 2021)  | clip_text_model, clip       | normalised first; causal; learned places  |
| `T5` encoder (Raffel et al., 2019)        | t5                          | normalised first; places bias the logits  |

A layout's fields have the names and defaults of config.json. `LAYOUTS` has them by `model_type`.

    import jax.numpy as jnp
    from score_sde.models.text_layouts import BERT

    bert = BERT(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    tensors = {name: jnp.ones(shape) for name, shape in bert.shapes().items()}
    features = bert(tensors, jnp.array([[2, 5, 3]]), jnp.array([[True, True, True]]))  # (1, 3, 4)
"""

import abc
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Bool, Float, Int
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of

Tensors = Mapping[str, Array]
Shapes = dict[str, tuple[int, ...]]
Hidden = Float[Array, "b n _"]
Mask = Bool[Array, "b n"]  # True where there is a token
Size = Annotated[int, "[1, inf)"]
Positive = Annotated[float, "(0, inf)"]


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": _quick_gelu,
    "relu": jax.nn.relu,
}


class Layout(abc.ABC):
    """A published network by its sizes.

    renamed: patterns of published names, and what is written here instead, so that a network and one of which it is a
    part have the same names.
    """

    title: ClassVar[str]
    renamed: ClassVar[tuple[tuple[str, str], ...]]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of features of a token."""

    @property
    @abc.abstractmethod
    def places(self) -> int | None:
        """The greatest length of a sequence; None for any."""

    @abc.abstractmethod
    def shapes(self) -> Shapes:
        """Shapes of the tensors that the features need, by name."""

    @abc.abstractmethod
    def __call__(self, tensors: Tensors, tokens: Int[Array, "b n"], mask: Mask) -> Hidden:
        """The features of tokens, float32; no token attends to one where the mask is False."""

    def read(self, published: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
        """The tensors of `shapes`, float32, from a file's; others in the file are left out.

        where: the file, for messages. Raises `UsageError` for one that is missing, of another shape, or not finite.
        """
        names = {self._name(name): name for name in published}
        result = {}
        for name, shape in self.shapes().items():
            if name not in names:
                raise UsageError(f"{where} has no {name}, which {self.title} has; give the folder of a whole encoder.")
            tensor = published[names[name]]
            if tensor.shape != shape:
                raise UsageError(
                    f"{where}: {names[name]} has shape {tensor.shape}, and by config.json {shape}; give both files "
                    "of one encoder."
                )
            if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
                raise UsageError(f"{where}: {names[name]} holds what is no finite number; get the file again.")
            result[name] = np.asarray(tensor, np.float32)
        return result

    def _name(self, name: str) -> str:
        for pattern, ours in self.renamed:
            name = re.sub(pattern, ours, name)
        return name


class Placed(Layout):
    """A layout with a learned embedding of each place, by the names that BERT and CLIP give their sizes."""

    hidden_size: Size
    max_position_embeddings: Size

    @property
    def size(self) -> int:
        return self.hidden_size

    @property
    def places(self) -> int:
        return self.max_position_embeddings


@check_arguments
@dataclasses.dataclass(frozen=True)
class BERT(Placed):
    """BERT's encoder, of which MiniLM is a small one: features of the last block, without the pooler."""

    title = "BERT"
    renamed = ((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))

    vocab_size: Size = 30522
    hidden_size: Size = 768
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    max_position_embeddings: Size = 512
    type_vocab_size: Size = 2
    hidden_act: str = "gelu"
    layer_norm_eps: Positive = 1e-12
    position_embedding_type: str | None = "absolute"

    def __post_init__(self):
        one_of("hidden_act of BERT", self.hidden_act, ACTIVATIONS)
        one_of("position_embedding_type of BERT", self.position_embedding_type or "absolute", ["absolute"])
        _check_heads(self.hidden_size, self.num_attention_heads)

    def shapes(self) -> Shapes:
        d, inner = self.hidden_size, self.intermediate_size
        table = "embeddings.{}_embeddings.weight".format
        rows = {"word": self.vocab_size, "position": self.max_position_embeddings, "token_type": self.type_vocab_size}
        shapes = {table(name): (n, d) for name, n in rows.items()} | _vectors(["embeddings.LayerNorm"], d)
        for block in _blocks("encoder.layer", self.num_hidden_layers):
            maps = (*(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense")
            shapes |= _linears([f"{block}.{name}" for name in maps], d, d)
            shapes |= _linears([f"{block}.intermediate.dense"], inner, d)
            shapes |= _linears([f"{block}.output.dense"], d, inner)
            shapes |= _vectors([f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"], d)
        return shapes

    def __call__(self, tensors: Tensors, tokens: Int[Array, "b n"], mask: Mask) -> Hidden:
        linear, norm = partial(_linear, tensors), partial(_layer_norm, tensors, epsilon=self.layer_norm_eps)
        x = tensors["embeddings.word_embeddings.weight"][tokens]
        x += tensors["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x = norm("embeddings.LayerNorm", x + tensors["embeddings.token_type_embeddings.weight"][0])
        for block in _blocks("encoder.layer", self.num_hidden_layers):
            maps = [linear(f"{block}.attention.self.{name}", x) for name in ("query", "key", "value")]
            h = linear(f"{block}.attention.output.dense", _attention(*maps, self.num_attention_heads, mask))
            x = norm(f"{block}.attention.output.LayerNorm", x + h)
            h = ACTIVATIONS[self.hidden_act](linear(f"{block}.intermediate.dense", x))
            x = norm(f"{block}.output.LayerNorm", x + linear(f"{block}.output.dense", h))
        return x


@check_arguments
@dataclasses.dataclass(frozen=True)
class CLIP(Placed):
    """CLIP's text tower: features after the last normalisation, without the projection."""

    title = "CLIP's text tower"
    renamed = ((r"^text_model\.", ""),)

    vocab_size: Size = 49408
    hidden_size: Size = 512
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 8
    intermediate_size: Size = 2048
    max_position_embeddings: Size = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Positive = 1e-5

    def __post_init__(self):
        one_of("hidden_act of CLIP", self.hidden_act, ACTIVATIONS)
        _check_heads(self.hidden_size, self.num_attention_heads)

    def shapes(self) -> Shapes:
        d, inner = self.hidden_size, self.intermediate_size
        shapes = {"embeddings.token_embedding.weight": (self.vocab_size, d)}
        shapes |= {"embeddings.position_embedding.weight": (self.max_position_embeddings, d)}
        for block in _blocks("encoder.layers", self.num_hidden_layers):
            shapes |= _linears([f"{block}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")], d, d)
            shapes |= _linears([f"{block}.mlp.fc1"], inner, d) | _linears([f"{block}.mlp.fc2"], d, inner)
            shapes |= _vectors([f"{block}.layer_norm1", f"{block}.layer_norm2"], d)
        return shapes | _vectors(["final_layer_norm"], d)

    def __call__(self, tensors: Tensors, tokens: Int[Array, "b n"], mask: Mask) -> Hidden:
        linear, norm = partial(_linear, tensors), partial(_layer_norm, tensors, epsilon=self.layer_norm_eps)
        x = tensors["embeddings.token_embedding.weight"][tokens]
        x += tensors["embeddings.position_embedding.weight"][: tokens.shape[1]]
        for block in _blocks("encoder.layers", self.num_hidden_layers):
            h = norm(f"{block}.layer_norm1", x)
            maps = [linear(f"{block}.self_attn.{name}_proj", h) for name in "qkv"]
            h = _attention(*maps, self.num_attention_heads, mask, is_causal=True)
            x += linear(f"{block}.self_attn.out_proj", h)
            h = ACTIVATIONS[self.hidden_act](linear(f"{block}.mlp.fc1", norm(f"{block}.layer_norm2", x)))
            x += linear(f"{block}.mlp.fc2", h)
        return norm("final_layer_norm", x)


@check_arguments
@dataclasses.dataclass(frozen=True)
class T5(Layout):
    """T5's encoder: features after the last normalisation; linear maps have no bias, and logits are not scaled."""

    title = "T5's encoder"
    renamed = ((r"^encoder\.embed_tokens\.", "shared."), (r"^encoder\.", ""))

    vocab_size: Size = 32128
    d_model: Size = 512
    d_kv: Size = 64
    d_ff: Size = 2048
    num_layers: Size = 6
    num_heads: Size = 8
    relative_attention_num_buckets: Annotated[int, "[4, inf)"] = 32
    relative_attention_max_distance: Size = 128
    layer_norm_epsilon: Positive = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self):
        one_of("feed_forward_proj of T5", self.feed_forward_proj, ["relu", "gated-gelu"])

    @property
    def size(self) -> int:
        return self.d_model

    @property
    def places(self) -> None:
        return None

    @property
    def _inner(self) -> tuple[str, ...]:
        """Names of the linear maps into a block's hidden features; the second one multiplies the first."""
        return ("wi",) if self.feed_forward_proj == "relu" else ("wi_0", "wi_1")

    def shapes(self) -> Shapes:
        d, heads = self.d_model, self.num_heads * self.d_kv
        buckets = (self.relative_attention_num_buckets, self.num_heads)
        shapes = {"shared.weight": (self.vocab_size, d), _BUCKETS: buckets, "final_layer_norm.weight": (d,)}
        for block in _blocks("block", self.num_layers):
            attention, dense = f"{block}.layer.0.SelfAttention", f"{block}.layer.1.DenseReluDense"
            shapes |= {f"{attention}.{name}.weight": (heads, d) for name in "qkv"}
            shapes |= {f"{attention}.o.weight": (d, heads), f"{dense}.wo.weight": (d, self.d_ff)}
            shapes |= {f"{dense}.{name}.weight": (self.d_ff, d) for name in self._inner}
            shapes |= {f"{block}.layer.{i}.layer_norm.weight": (d,) for i in (0, 1)}
        return shapes

    def __call__(self, tensors: Tensors, tokens: Int[Array, "b n"], mask: Mask) -> Hidden:
        linear, norm = partial(_linear, tensors), partial(_rms_norm, tensors, epsilon=self.layer_norm_epsilon)
        activation = ACTIVATIONS["relu" if self.feed_forward_proj == "relu" else "gelu_new"]
        bias = jnp.moveaxis(tensors[_BUCKETS][self._buckets(tokens.shape[1])], -1, 0)[None]
        x = tensors["shared.weight"][tokens]
        for block in _blocks("block", self.num_layers):
            attention, dense = f"{block}.layer.0.SelfAttention", f"{block}.layer.1.DenseReluDense"
            h = norm(f"{block}.layer.0.layer_norm", x)
            maps = [linear(f"{attention}.{name}", h) for name in "qkv"]
            x += linear(f"{attention}.o", _attention(*maps, self.num_heads, mask, bias=bias, scale=1.0))
            h = norm(f"{block}.layer.1.layer_norm", x)
            inner = [linear(f"{dense}.{name}", h) for name in self._inner]
            x += linear(f"{dense}.wo", math.prod(inner[1:], start=activation(inner[0])))
        return norm("final_layer_norm", x)

    def _buckets(self, n: int) -> np.ndarray:
        """The number of the learned bias for each pair (query, key) of n tokens.

        Half of the buckets are for later keys. Of each half, a half are for one distance, and others for distances
        that grow geometrically; the last is for all that are greater.
        """
        ahead = self.relative_attention_num_buckets // 2
        exact = ahead // 2
        offset = np.arange(n)[None, :] - np.arange(n)[:, None]
        distance = np.abs(offset)
        growth = np.float32(math.log(self.relative_attention_max_distance / exact))
        steps = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / growth * (ahead - exact)
        far = np.minimum(exact + steps.astype(np.int32), ahead - 1)
        return np.where(offset > 0, ahead, 0) + np.where(distance < exact, distance, far)


_BUCKETS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def _blocks(name: str, n: int) -> list[str]:
    return [f"{name}.{i}" for i in range(n)]


def _linears(names: Iterable[str], out: int, features: int) -> Shapes:
    """Shapes of linear maps with a bias."""
    return {f"{name}.weight": (out, features) for name in names} | {f"{name}.bias": (out,) for name in names}


def _vectors(names: Iterable[str], d: int) -> Shapes:
    """Shapes of normalisations with scale and shift."""
    return {f"{name}.{leaf}": (d,) for name in names for leaf in ("weight", "bias")}


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise UsageError(f"config.json has num_attention_heads={heads}, which does not divide hidden_size={width}.")


def _linear(tensors: Tensors, name: str, x: Hidden) -> Hidden:
    return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0)


def _layer_norm(tensors: Tensors, name: str, x: Hidden, epsilon: float) -> Hidden:
    centred = x - x.mean(-1, keepdims=True)
    return _rms_norm(tensors, name, centred, epsilon) + tensors[f"{name}.bias"]


def _rms_norm(tensors: Tensors, name: str, x: Hidden, epsilon: float) -> Hidden:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon) * tensors[f"{name}.weight"]


def _attention(q: Hidden, k: Hidden, v: Hidden, heads: int, mask: Mask, **options: Any) -> Hidden:
    """Attention to the tokens of the mask; queries, keys and values are split into heads of consecutive features."""
    b, n, _ = q.shape
    split = [maps.reshape(b, n, heads, -1) for maps in (q, k, v)]
    return jax.nn.dot_product_attention(*split, mask=mask[:, None, None, :], **options).reshape(b, n, -1)


LAYOUTS: dict[str, type[Layout]] = {"bert": BERT, "clip_text_model": CLIP, "clip": CLIP, "t5": T5}


@check_arguments
def layout_of(config: Mapping, where: str = "config.json") -> Layout:
    """The layout that the fields of a config.json describe. where: the file, for messages.

    Raises `UsageError` for another layout, and for sizes that it cannot have.

        from score_sde.models.text_layouts import layout_of

        layout = layout_of({"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6})
        layout.size  # 384
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise UsageError(f"{where} has the model_type {kind!r:.40}; choose an encoder of: {', '.join(LAYOUTS)}.")
    inner = config.get("text_config")  # of CLIP with both towers
    config = inner if kind == "clip" and isinstance(inner, Mapping) else config
    fields = {field.name for field in dataclasses.fields(LAYOUTS[kind])}
    try:
        return LAYOUTS[kind](**{name: value for name, value in config.items() if name in fields})
    except UsageError as error:
        raise UsageError(f"{where} describes no encoder that can be read: {error}") from None
