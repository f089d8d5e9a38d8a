"""A small causal transformer on characters, in plain JAX, and the text that the examples train it on.

The parameters are a dict of arrays, and those of the layers are stacked along a first axis, so that one
`jax.lax.scan` compiles one layer. Every function is pure: `loss(params, batch)` is what an optimizer differentiates.
"""

from pydoc_data.topics import topics
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np

HEADS, CONTEXT, HELD_OUT = 4, 64, 128  # the last one in windows of CONTEXT characters


# The text


class Text(NamedTuple):
    """Characters as integers below ``size``."""

    train: np.ndarray
    held_out: np.ndarray  # (HELD_OUT, CONTEXT + 1)
    size: int


def language_reference() -> Text:
    """The language reference that ships with Python (`pydoc_data.topics`); the last tenth is held out.

    Repeated paragraphs are kept once, so that held-out text does not occur in the training text.
    """
    paragraphs = (" ".join(p.split()) for name in sorted(topics) for p in topics[name].split("\n\n"))
    characters, text = np.unique(list("\n".join(dict.fromkeys(paragraphs))), return_inverse=True)
    cut = len(text) * 9 // 10
    starts = np.linspace(cut, len(text) - CONTEXT - 1, HELD_OUT).astype(int)
    return Text(text[:cut].astype(np.int32), windows(text, starts), len(characters))


def windows(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """CONTEXT characters from each start, and the next one: ``(..., CONTEXT + 1)``."""
    return text[starts[..., None] + np.arange(CONTEXT + 1)].astype(np.int32)


def random_batch(key: jax.Array, text: jax.Array | np.ndarray, size: int) -> jax.Array:
    """``size`` windows of a text, drawn with a key: ``(size, CONTEXT + 1)``."""
    starts = jax.random.randint(key, (size,), 0, len(text) - CONTEXT)
    return jnp.asarray(text)[starts[:, None] + jnp.arange(CONTEXT + 1)[None]]


# The network

OTHERS = "character|position|norm|^out"  # the parameters that are no hidden matrices
MATRICES = cx.by_path({"attention_in": cx.matrices("_layer in, 3*out")}, default=cx.matrices("_layer in, out"))


def initial_params(key: jax.Array, size: int, layers: int, width: int) -> dict[str, Any]:
    """Initial parameters, for ``size`` characters."""
    keys = iter(jax.random.split(key, 7))

    def normal(scale: float, *shape: int) -> jax.Array:
        return scale * jax.random.normal(next(keys), shape)

    inner, outer = width**-0.5, (2 * layers * width) ** -0.5  # smaller for matrices that add to the residual stream
    return {
        "character": normal(0.1, size, width),
        "position": normal(0.1, CONTEXT, width),
        "layers": {
            "attention_norm": jnp.ones((layers, width)),
            "attention_in": normal(inner, layers, width, 3 * width),  # queries, keys and values
            "attention_out": normal(outer, layers, width, width),
            "mlp_norm": jnp.ones((layers, width)),
            "mlp_in": normal(inner, layers, width, 4 * width),
            "mlp_out": normal(outer / 2, layers, 4 * width, width),
        },
        "norm": jnp.ones(width),
        "out": normal(inner, width, size),
    }


def normalized(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Divide by the root mean square over the width."""
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5) * scale[None, None]


def logits(params: Any, characters: jax.Array) -> jax.Array:
    """(n, CONTEXT) -> (n, CONTEXT, size)."""
    n = len(characters)
    past = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))[None, None]

    def layer(x: jax.Array, p: Any) -> tuple[jax.Array, None]:
        heads = (normalized(x, p["attention_norm"]) @ p["attention_in"]).reshape(n, CONTEXT, 3, HEADS, -1)
        query, key, value = (heads[:, :, i] for i in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / query.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
        x = x + jnp.einsum("nhqk,nkhd->nqhd", weights, value).reshape(x.shape) @ p["attention_out"]
        return x + jax.nn.relu(normalized(x, p["mlp_norm"]) @ p["mlp_in"]) @ p["mlp_out"], None

    x = params["character"][characters] + params["position"][None]
    x, _ = jax.lax.scan(layer, x, params["layers"])
    return normalized(x, params["norm"]) @ params["out"]


def loss_and_accuracy(params: Any, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy per character in nats, and the fraction of characters whose prediction is right.

    Computed in float32 for parameters of any dtype.
    """
    wide, following = jax.tree.map(lambda p: p.astype(jnp.float32), params), batch[:, 1:]
    log_chances = jax.nn.log_softmax(logits(wide, batch[:, :-1]))
    likelihoods = jnp.take_along_axis(log_chances, following[..., None], axis=-1)
    return -jnp.mean(likelihoods), jnp.mean(jnp.argmax(log_chances, axis=-1) == following)


def loss(params: Any, batch: jax.Array) -> jax.Array:
    """The function to minimize."""
    return loss_and_accuracy(params, batch)[0]
