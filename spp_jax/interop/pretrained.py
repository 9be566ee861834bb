"""Imports a file of published weights as a checkpoint."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import jax

from spp_jax import checkpoint, errors, network
from spp_jax import config as config_lib
from spp_jax.interop import conversion, weights
from spp_jax.models import backbones
from spp_jax.runs import files, lock, places

SHORTER_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Imported:
    """Counts of the layers and parameters that were imported, and the layers that were left out."""

    num_layers: int
    num_parameters: int
    left_out: tuple[str, ...]


def make_config(
    name: str,
    num_classes: int,
    *,
    levels: tuple[int, ...] | None = None,
    reduce: str | None = None,
) -> config_lib.Config:
    """Returns the config of a published network: its own size, on images of shorter side 256.

    Args:
        name: the backbone.
        num_classes: outputs of the classifier.
        levels: bins per side of each pyramid level, () without SPP; None is as published:
            the paper's 6, 3, 2, 1, or 1 where the network's own pool is a pyramid.
        reduce: "max" or "mean"; None is as published.

    Raises:
        InputError: the backbone is unknown, or does not take the levels or `reduce`.
    """
    if name not in backbones.BACKBONES:
        raise errors.InputError(f"no network {name!r}; there are {', '.join(backbones.BACKBONES)}")
    backbone = backbones.BACKBONES[name]
    has_own_pyramid = backbone.last_pool is None
    config = config_lib.Config()
    config.model.name, config.model.num_classes = name, num_classes
    if levels is not None:
        config.model.levels = levels
    elif has_own_pyramid:
        config.model.levels = (1,)
    config.model.reduce = reduce or ("mean" if has_own_pyramid else "max")
    config.train.sizes = (backbone.size,)
    config.data.crop_size, config.data.shorter_side = backbone.size, SHORTER_SIDE
    config_lib.validate(config)
    network.check(config)
    return config


def read_class_names(path: str) -> tuple[str, ...]:
    """Returns the names of a network's outputs, in order, from a file of one name per line.

    Raises:
        InputError: the file cannot be read or is empty, or a line is blank or there twice.
    """
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        names = [line.strip() for line in text.splitlines()]
    except OSError as e:
        raise errors.InputError(f"classes {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise errors.InputError(f"classes {path} are not UTF-8 text") from e
    if not names:
        raise errors.InputError(f"classes {path} hold no line")
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise errors.InputError(f"line {number} of classes {path} is blank")
        if name in lines:
            raise errors.InputError(
                f"lines {lines[name]} and {number} of classes {path} are both {name!r}"
            )
        lines[name] = number
    return tuple(names)


def import_weights(
    config: config_lib.Config,
    weights_path: str,
    class_names: Sequence[str],
    output: str,
    *,
    fresh_head: bool = False,
    unscaled_dropout: bool = False,
) -> Imported:
    """Writes step 0 of a workdir: the network of a config with the weights of a file.

    Args:
        config: as `make_config` returns it.
        weights_path: a .caffemodel, or an .npz as `weights.read_npz` describes.
        class_names: the names of the network's outputs, in order.
        output: the workdir, made if missing; it stays untouched where a check fails.
        fresh_head: as in `conversion.to_params`.
        unscaled_dropout: as in `conversion.to_params`.

    Raises:
        InputError: the weights do not fit the network or the class names, or `output` cannot be
            written or holds a checkpoint.
    """
    _check_output(output)
    layers = weights.read_weights(weights_path)
    model = network.make(config.model, len(class_names))
    *_, classifier = conversion.head_names(model.backbone).values()
    biases = layers.get(classifier, [])[1:]
    if biases and biases[0].size != len(class_names) and not fresh_head:
        raise errors.InputError(
            f"there are {len(class_names)} class names, and {classifier} of {weights_path} has "
            f"{biases[0].size} outputs"
        )
    left_out = conversion.unused(model.backbone, layers, fresh_head)
    params = conversion.to_params(
        model, layers, fresh_head=fresh_head, unscaled_dropout=unscaled_dropout
    )
    num_layers = len(layers) - len(left_out)
    del layers  # to free the memory, as much as the file has
    source = {"file": os.path.basename(weights_path), "sha256": _digest(weights_path)}
    meta = checkpoint.Meta(
        step=0,
        config=config,
        class_names=tuple(class_names),
        num_examples=0,
        metrics={"source": source},
    )
    with lock.hold(output):
        _check_output(output)  # once more: another import may have ended meanwhile
        checkpoint.save_network(output, {"params": params}, meta)
    return Imported(
        num_layers=num_layers,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        left_out=left_out,
    )


def _check_output(output: str) -> None:
    if not output:
        raise errors.InputError("output '' is no folder")
    if os.path.basename(os.path.abspath(output)) == checkpoint.CHECKPOINTS:
        raise errors.InputError(f"output {output} has the name of the folder made in it")
    if checkpoint.latest_step_dir(output) is not None:
        raise errors.InputError(f"output {output} holds a checkpoint already")
    places.check(output, files=[lock.LOCK_FILE], folders=[checkpoint.CHECKPOINTS])


def _digest(path: str) -> str:
    with files.open_regular(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
