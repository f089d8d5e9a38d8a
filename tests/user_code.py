"""What a user would write, for a type checker. Lines that end in ``# error`` must be rejected, all others accepted."""

from typing import Any, assert_type

import chainax as cx
import chainax.extend as cxe
import jax.numpy as jnp
import optax
from chainax.flax import Optimizer, TrainState
from flax import nnx

tx = cx.chain(
    cx.clip_by_global_norm(1.0),
    cx.scale_by_adam(b2=cx.by_path({"embed": 0.95}, default=0.999)),
    cx.add_decayed_weights(0.1),
    cx.scale_by_lr(cx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 10_000)),
)
assert_type(tx.move("add_decayed_weights", before="scale_by_adam"), cx.chain)
assert_type(tx[1:], cx.chain)
assert_type(tx.describe(), str)
params = {"w": jnp.ones(3)}
state = tx.init(params)
assert_type(state, cx.State)
assert_type(tx.replace("scale_by_adam", b1=0.8), cx.chain)
params, state = tx.step(params, state, params)
step = cx.make_step(tx)
assert_type(step(params, state, params)[1], cx.State)
step(params, state)  # error
cx.sgd(lambda step: 0.1 / (1 + step), momentum=0.9)
cx.adamw(jnp.array(1e-3), weight_decay=0.0)
cx.adamw(cx.by_depth(0.9, layers=12, value=1e-3), weight_decay=cx.by_ndim({1: 0.0}, default=0.1))
cx.scale(cx.by_width(params, rule="sgd"))
cx.store(tx, cx.by_ndim({1: "float32"}, default=cx.int8()))
assert_type(cx.muon(0.02), cx.chain)
cx.by_ndim(0.1)  # error
cx.by_depth(0.9)  # error
cx.scale_by_adam(beta1=0.9)  # error
cx.adamw("fast")  # error
cx.adamw(1e-3, mask=None)  # error
tx.moved("scale_by_adam")  # error
cx.chain(0.1)  # error
cx.scale_by_adam().b1 = 0.5  # error
print(cx.masked)  # error
print(cx.transform)  # error


@cxe.transform
class scale_by_sign(cxe.Leafwise):
    """A link of one's own."""

    floor: cxe.Hyper = cxe.hyper("f", "smallest magnitude", default=0.0)

    equation = "u ← max(f, sign(u))"

    def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
        """Keep the sign."""
        return jnp.maximum(jnp.sign(u), self.floor)


scale_by_sign(floor=cx.linear_schedule(0.0, 1.0, 10))
scale_by_sign(flor=1.0)  # error

# Flax and Optax

assert_type(tx.to_optax(), optax.GradientTransformationExtraArgs)
both = optax.chain(optax.zero_nans(), tx.to_optax())
halves = optax.MultiSteps(tx.to_optax(), 2)
model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
theirs = nnx.Optimizer(model, tx.to_optax(), wrt=nnx.Param)
theirs = nnx.Optimizer(model, tx, wrt=nnx.Param)  # error
optimizer = Optimizer(model, tx, wrt=nnx.Param)
optimizer.update(model, params, value=0.5)
assert_type(optimizer.opt_state, cx.State)
assert_type(optimizer.tx.describe(), str)
optimizer = Optimizer(model, tx.to_optax(), wrt=nnx.Param)  # error
training = TrainState.create(apply_fn=None, params=params, tx=tx).apply_gradients(grads=params, value=0.5)
assert_type(training, TrainState)
assert_type(training.opt_state, cx.State)
assert_type(cx.read_average(tx, model, optimizer.opt_state), Any)
