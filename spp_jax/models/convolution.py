"""Convolution whose gradient on CPUs is matrix products.

XLA's own gradient with respect to a kernel takes two to five times as long there as such products
(docs/results/speed.md). Shapes: N maps · (H, W) cells · C to D channels · (k, k) kernel.
"""

import functools

import jax
import jax.numpy as jnp

# Multiplications of a convolution below which XLA's own gradient is as fast, with fewer operations.
_MIN_MULTIPLICATIONS = 5e8

# With fewer channels, as in the first layer, the product of a kernel's row would be too thin.
_FEW_CHANNELS = 16


def _apply(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolves (N, H, W, C) with (k, k, C, D) to (N, H', W', D).

    Stride and padding, in cells, are alike on all sides.
    """
    return _apply(x, kernel, stride, padding)


@convolve.defjvp
def _convolve_jvp(stride: int, padding: int, primals: tuple, tangents: tuple):
    y = convolve(*primals, stride, padding)

    # JAX makes the gradient by transposing the operations of this derivative. So `cpu` consists of
    # slices, whose transposes are pads, and of matrix products, whose transposes are products too.
    def default(x, kernel, dx, dkernel):
        return _apply(dx, kernel, stride, padding) + _apply(x, dkernel, stride, padding)

    # The checkpoint stores only the four arguments for the gradient, which cuts the patches again.
    @jax.checkpoint
    def cpu(x, kernel, dx, dkernel):
        if y.size * kernel[..., 0].size < _MIN_MULTIPLICATIONS and kernel.shape[0] > 1:
            return default(x, kernel, dx, dkernel)
        change = _by_phases(_pad(dx, padding), kernel, stride)
        return change + _by_products(_pad(x, padding), dkernel, stride)

    return y, jax.lax.platform_dependent(*primals, *tangents, cpu=cpu, default=default)


def _pad(x: jax.Array, padding: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _by_products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves by one matrix product per row of the kernel, or by a single one if C is small."""
    k, _, channels, features = kernel.shape
    rows, columns = ((side - k) // stride * stride + 1 for side in x.shape[1:3])
    patches = []
    for i in range(k):
        row = x[:, i : i + rows : stride]
        patches += [row[:, :, j : j + columns : stride] for j in range(k)]
    per_product = k * k if channels < _FEW_CHANNELS else k
    parts, shape = [], ()
    for first in range(0, k * k, per_product):
        cells = jnp.concatenate(patches[first : first + per_product], axis=3)
        shape = cells.shape[:3]
        part = kernel.reshape(k * k, channels, features)[first : first + per_product]
        # The barrier makes XLA compute the gradient as (features, ...), which is faster.
        part = jax.lax.optimization_barrier(part.reshape(-1, features).T)
        parts.append(cells.reshape(-1, per_product * channels) @ part.T)
    return sum(parts[1:], parts[0]).reshape(*shape, features)


def _by_phases(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves by one convolution of stride 1 per phase, a phase being every stride-th cell.

    The transpose of a strided convolution would run over cells that are mostly zeros.
    """
    k = kernel.shape[0]
    rows, columns = ((side - k) // stride + 1 for side in x.shape[1:3])
    parts = []
    for i in range(min(stride, k)):
        for j in range(min(stride, k)):
            part = kernel[i::stride, j::stride]
            phase = x[:, i::stride, j::stride]
            phase = phase[:, : rows + part.shape[0] - 1, : columns + part.shape[1] - 1]
            parts.append(_apply(phase, part, 1, 0))
    return sum(parts[1:], parts[0])
