"""The programs that `benchmarks.gpu_programs` compiles: the library's own, of shapes alone.

Nothing is computed: parameters and batches are shapes with the shardings they have in a run.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import spp_jax
from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.detection import device
from spp_jax.detection.learning import finetune
from spp_jax.detection.windows import regions
from spp_jax.evaluation import classify, features
from spp_jax.models import sppnet, topology
from spp_jax.pooling import pyramid, windows
from spp_jax.training import programs, schedule, steps
from spp_jax.training import state as state_lib

BATCH = 128  # images of a device, the paper's batch
_VIEWED = 16  # images of a batch of 96 views
_WINDOWS = 2048  # 2,000 windows, padded as detection pads them
_CLASSES = 20
_SCALES = (480, 576, 688, 864, 1200)  # section 4.1
_VIEW_SCALES = (224, 256, 300, 360, 448, 560)  # section 3.1.5

Compiled = jax.stages.Compiled
Make = Callable[[Mesh, bool], Iterable[Compiled]]


@dataclasses.dataclass(frozen=True)
class Case:
    """Programs that do one piece of work together.

    Attributes:
        name: of the table's row.
        dtype: of the products.
        make: (mesh, whether with deterministic operations) -> the compiled programs.
        trains: whether it can be compiled with deterministic operations and for many devices.
    """

    name: str
    dtype: str
    make: Make
    trains: bool = False


def _spec(tree: Any, where: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def _array(shape: tuple[int, ...], dtype: Any, where: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _variables(model: sppnet.SPPNet, mesh: Mesh) -> Any:
    stored = {"params": sppnet.param_shapes(model)}
    cast = jax.eval_shape(functools.partial(sppnet.cast_params, model), stored)
    return _spec(cast, sharding.replicated(mesh))


def _compile_step(
    model: sppnet.SPPNet,
    optimizer: Any,
    run: steps.TrainStep,
    batch: dict[str, tuple[tuple[int, ...], Any]],
    mesh: Mesh,
    deterministic: bool,
) -> list[Compiled]:
    """Returns the program of a training step, as a run compiles it."""
    size = model.backbone.size  # of the image that initialises the network; any will do
    state = jax.eval_shape(lambda: state_lib.init_state(model, optimizer, 0, size, mesh))
    spec = _spec(state, sharding.replicated(mesh))
    compiled = programs.compile_programs(
        run, spec, [size], lambda _: batch, mesh, deterministic=deterministic
    )
    return [compiled[size].run]


def step(name: str, side: int, dtype: str) -> Case:
    """Returns the training step of a network at one size."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model = spp_jax.make_model(name, dtype=dtype)
        optimizer = schedule.make_optimizer(config_lib.TrainConfig(), 1000)
        run = steps.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.1)
        count = BATCH * mesh.size
        batch = {
            "image": ((count, side, side, 3), jnp.uint8),
            "label": ((count,), jnp.int32),
            "weight": ((count,), jnp.float32),
        }
        return _compile_step(model, optimizer, run, batch, mesh, deterministic)

    return Case(f"{name} {side} {dtype}", dtype, make, trains=True)


def tuning(dtype: str) -> Case:
    """Returns a step of fine-tuning ZF-5 from conv4 on, on two images of shorter side 688."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model = spp_jax.make_model("zf5", num_classes=_CLASSES + 1, dtype=dtype)
        is_trained = finetune.trained_mask(model, "conv4")
        optimizer = schedule.make_optimizer(config_lib.TrainConfig(lr_schedule="step"), 1)
        masked = finetune.mask(optimizer, is_trained)
        run = finetune.make_step(model, masked, is_trained, seed=0)
        count, canvas = 2 * mesh.size, _canvases((688,))[0]
        batch = {
            "images": ((count, *canvas, 3), jnp.uint8),
            "extents": ((count, 2), jnp.int32),
            "windows": ((count, 64, 4), jnp.int32),
            "labels": ((count, 64), jnp.int32),
            "weights": ((count, 64), jnp.float32),
        }
        return _compile_step(model, masked, run, batch, mesh, deterministic)

    return Case(f"fine-tuning of zf5 from conv4 {dtype}", dtype, make, trains=True)


def evaluation(dtype: str) -> Case:
    """Returns the scores of whole images on a canvas of 256 x 352 pixels."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model, split = spp_jax.make_model("zf5", dtype=dtype), sharding.split(mesh)
        batch = {
            "images": _array((BATCH, 256, 352, 3), jnp.uint8, split),
            "extents": _array((BATCH, 2), jnp.int32, split),
        }
        lowered = classify.score_batch.lower(model, _variables(model, mesh), batch, None)
        return [lowered.compile()]

    return Case(f"evaluation of zf5 on a canvas of 256x352 {dtype}", dtype, make)


def views(dtype: str) -> Case:
    """Returns the 96 views of images at six scales; each program runs for both mirror images."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model, split = spp_jax.make_model("zf5", dtype=dtype), sharding.split(mesh)
        for scale in _VIEW_SCALES:
            count = 3 if scale == _VIEW_SCALES[0] else 9
            batch = {
                "images": _array((_VIEWED, scale, round(scale * 4 / 3), 3), jnp.uint8, split),
                "extents": _array((_VIEWED, 2), jnp.int32, split),
                "cells": _array((_VIEWED, count, 4), jnp.int32, split),
            }
            mirrored = _array((), jnp.bool_, sharding.replicated(mesh))
            lowered = classify.score_batch.lower(model, _variables(model, mesh), batch, mirrored)
            compiled = lowered.compile()
            yield compiled
            yield compiled

    return Case(f"96 views of {_VIEWED} images, zf5 {dtype}", dtype, make)


def extraction(dtype: str) -> Case:
    """Returns pooled conv5 and fc7 of images on canvases of 224 x 300 pixels."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model, split = spp_jax.make_model("zf5", dtype=dtype), sharding.split(mesh)
        parts = features.check_parts(
            model, [features.Part("conv5", (6, 3, 2, 1)), features.Part("fc7")]
        )
        batch = {
            "images": _array((32, 224, 300, 3), jnp.uint8, split),
            "extents": _array((32, 2), jnp.int32, split),
        }
        run = features.compute_batch.lower(model, parts, True, _variables(model, mesh), batch)
        return [run.compile()]

    return Case(f"features of 32 images, zf5 {dtype}", dtype, make)


def _canvases(scales: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    planned = regions.PLANNED
    return regions.scale_canvas((planned, round(planned * 4 / 3)), scales)


def maps(dtype: str) -> Case:
    """Returns detection's maps of an image at five scales."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model, split = spp_jax.make_model("zf5", dtype=dtype), sharding.split(mesh)
        for canvas in _canvases(_SCALES):
            batch = {
                "images": _array((mesh.size, *canvas, 3), jnp.uint8, split),
                "extents": _array((mesh.size, 2), jnp.int32, split),
            }
            yield device.make_map.lower(model, "conv5", _variables(model, mesh), batch).compile()

    return Case(f"detection: maps at five scales {dtype}", dtype, make)


def pooled(layer: str, dtype: str) -> Case:
    """Returns detection's features of the windows of an image on five maps."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        model, split = spp_jax.make_model("zf5", dtype=dtype), sharding.split(mesh)
        sides = [topology.map_size(model.backbone, "conv5", c) for c in _canvases(_SCALES)]
        maps = tuple(_array((mesh.size, *side, 256), jnp.dtype(dtype), split) for side in sides)
        batch = {
            "cells": _array((mesh.size, _WINDOWS, 4), jnp.int32, split),
            "map_index": _array((mesh.size, _WINDOWS), jnp.int32, split),
        }
        levels = ((6, 3, 2, 1), "max")
        run = device.pool_maps.lower(model, levels, layer, _variables(model, mesh), maps, batch)
        return [run.compile()]

    what = "windows alone" if layer == "pool" else "windows, fc6 and fc7"
    return Case(f"detection: {what} {dtype}", dtype, make)


def scores(num_features: int = 4096, num_pooled: int = 12800) -> Case:
    """Returns detection's SVMs, box regression and suppression of the windows of an image."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        array = functools.partial(_array, where=sharding.replicated(mesh))
        part = {
            "svm": {
                "weights": array((num_features, _CLASSES), jnp.float32),
                "bias": array((_CLASSES,), jnp.float32),
            },
            "layer": array((_WINDOWS, num_features), jnp.float32),
            "row": array((_WINDOWS,), jnp.int32),
            "regressor": {
                "weights": array((num_pooled, _CLASSES, 4), jnp.float32),
                "bias": array((_CLASSES, 4), jnp.float32),
            },
            "pool": array((_WINDOWS, num_pooled), jnp.float32),
        }
        scalar = array((), jnp.float32)
        lowered = device.detect.lower(
            *([part], array((_WINDOWS, 4), jnp.float32), array((), jnp.int32)),
            *(array((4,), jnp.float32), scalar, scalar),
            max_detections=100,
        )
        return [lowered.compile()]

    return Case("detection: SVMs, regression, suppression", "float32", make)


def window_gradient() -> Case:
    """Returns the pools of 2,000 windows on a map of 75 x 100 cells, and their gradient."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        whole = sharding.replicated(mesh)

        def run(fmap: jax.Array, cells: jax.Array, change: jax.Array) -> Any:
            pooled, back = jax.vjp(lambda x: windows.pool_windows(x, cells), fmap)
            return pooled, back(change)

        lowered = jax.jit(run).lower(
            _array((75, 100, 256), jnp.float32, whole),
            _array((2000, 4), jnp.int32, whole),
            _array((2000, 50 * 256), jnp.float32, whole),
        )
        options = programs.compiler_options(mesh, deterministic=deterministic)
        return [lowered.compile(compiler_options=options)]

    return Case("pools of 2,000 windows and their gradient", "float32", make, trains=True)


def pyramid_gradient() -> Case:
    """Returns the pyramids of 128 maps of 13 x 13 cells, and their gradient."""

    def make(mesh: Mesh, deterministic: bool) -> Iterable[Compiled]:
        split = sharding.split(mesh)

        def run(fmap: jax.Array, change: jax.Array) -> Any:
            pooled, back = jax.vjp(pyramid.spatial_pyramid_pool, fmap)
            return pooled, back(change)

        lowered = jax.jit(run).lower(
            _array((BATCH, 13, 13, 256), jnp.bfloat16, split),
            _array((BATCH, 50 * 256), jnp.bfloat16, split),
        )
        options = programs.compiler_options(mesh, deterministic=deterministic)
        return [lowered.compile(compiler_options=options)]

    return Case("pyramids of 128 maps and their gradient", "bfloat16", make, trains=True)


ALL = [
    *(
        step(name, side, dtype)
        for dtype in ("bfloat16", "float32")
        for name in ("zf5", "convnet_star5", "overfeat7")
        for side in (224, 180)
    ),
    step("googlenet", 224, "bfloat16"),
    tuning("bfloat16"),
    evaluation("bfloat16"),
    views("bfloat16"),
    extraction("bfloat16"),
    maps("bfloat16"),
    pooled("pool", "bfloat16"),
    pooled("fc7", "bfloat16"),
    scores(),
    window_gradient(),
    pyramid_gradient(),
]
