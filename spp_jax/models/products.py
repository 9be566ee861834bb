"""Convolutions and dense layers; training sums their gradients over devices in float32.

Shapes: N maps · (H, W) cells · C to D channels · (k, k) kernel. R rows · P to F features.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from spp_jax.models import convolution


class Convolution(nn.Module):
    """Convolves (N, H, W, C) to (N, H', W', D) and adds a bias; both parameters are float32.

    Attributes:
        features: D.
        kernel: k, cells.
        stride, padding: cells, alike on all sides.
        dtype: of the computation.
        kernel_init, bias_init: draw the parameters.
    """

    features: int
    kernel: int
    stride: int
    padding: int
    dtype: str
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = self.kernel, self.kernel, x.shape[-1], self.features

        def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return convolution.convolve(x, kernel, self.stride, self.padding)

        return _product(self, convolve, x, shape)


class Dense(nn.Module):
    """Multiplies (..., P) to (..., F) and adds a bias; attributes as those of `Convolution`.

    With a `bias_init` of None there is no bias.
    """

    features: int
    dtype: str
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _product(self, jnp.dot, x, (x.shape[-1], self.features))


def _product(
    layer: Convolution | Dense,
    multiply: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """Returns `multiply` of x and a kernel of the shape, and the layer's bias added to it."""
    parameters = [layer.param("kernel", layer.kernel_init, shape, jnp.float32)]
    if layer.bias_init is not None:
        parameters.append(layer.param("bias", layer.bias_init, (layer.features,), jnp.float32))

    def compute(x: jax.Array, kernel: jax.Array, *biases: jax.Array) -> jax.Array:
        y = multiply(x, kernel.astype(layer.dtype))
        for bias in biases:
            y += bias.astype(layer.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y

    return _on_each_device(compute, x.astype(layer.dtype), *parameters)


def _on_each_device(
    function: Callable[..., jax.Array], x: jax.Array, *parameters: jax.Array
) -> jax.Array:
    """Returns `function` of x and parameters, the rows of each device computed by themselves.

    XLA sums a gradient over devices where it is computed, in the dtype of the product. Here it is
    the function that casts parameters: their gradients leave it, and are summed, as float32. So it
    is within `jax.sharding.use_abstract_mesh` of a mesh of automatic axes that divides the rows, as
    training programs are traced; everywhere else the function is called as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_split = mesh.size > 1 and set(mesh.axis_types) == {AxisType.Auto}
    if not is_split or x.shape[0] % mesh.size or x.dtype == parameters[0].dtype:
        return function(x, *parameters)
    rows = PartitionSpec(mesh.axis_names)
    wholes = [PartitionSpec()] * len(parameters)
    run = jax.shard_map(function, in_specs=(rows, *wholes), out_specs=rows, check_vma=False)
    return run(x, *parameters)
