"""Reads published weights of either format into Caffe's layout.

Caffe's layout is {layer: [kernel, bias]} with kernels (outputs, inputs, height, width) or (outputs,
inputs). The first kernel's inputs are blue, green, red; a map becomes a vector channel by channel.
"""

import numpy as np

from spp_jax import errors
from spp_jax.interop import caffe
from spp_jax.runs import archives, files

_ZIP = b"PK"


def read_weights(path: str) -> dict[str, list[np.ndarray]]:
    """Returns {layer: blobs} of a .caffemodel or an .npz, told apart by content.

    Raises:
        InputError: the file cannot be read, is damaged, or is neither.
    """
    try:
        with files.open_regular(path) as f:
            is_zip = f.read(2) == _ZIP
    except OSError as e:
        raise errors.InputError(f"weights {path} cannot be read: {e.strerror}") from e
    return read_npz(path) if is_zip else caffe.read_caffemodel(path)


def read_npz(path: str) -> dict[str, list[np.ndarray]]:
    """Returns {layer: [kernel, bias]} of arrays named LAYER/kernel and LAYER/bias.

    In the file kernels are (height, width, inputs, outputs) or (inputs, outputs); the arrays
    returned are views in Caffe's order of axes.

    Raises:
        InputError: the file cannot be read, is damaged or no .npz, or an array has another name,
            type or number of axes.
    """
    try:
        arrays = archives.read_npz(path)
    except (OSError, ValueError) as e:
        raise errors.InputError(f"weights {path} are damaged or no .npz: {e}") from e
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        layer, _, part = name.rpartition("/")
        if not layer or part not in ("kernel", "bias"):
            raise errors.InputError(
                f"weights {path} hold {name!r}; arrays are named LAYER/kernel and LAYER/bias"
            )
        if not np.issubdtype(value.dtype, np.floating):
            raise errors.InputError(f"weights {path}: {name} is {value.dtype}, not floating")
        layers.setdefault(layer, {})[part] = value
    blobs: dict[str, list[np.ndarray]] = {}
    for layer, parts in layers.items():
        if set(parts) != {"kernel", "bias"}:
            raise errors.InputError(f"weights {path}: {layer} has only a {next(iter(parts))}")
        kernel = parts["kernel"]
        outputs_first = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        if kernel.ndim not in (2, 4):
            raise errors.InputError(
                f"weights {path}: {layer}/kernel has {kernel.ndim} axes, neither 4 nor 2"
            )
        blobs[layer] = [kernel.transpose(outputs_first), parts["bias"]]
    if not blobs:
        raise errors.InputError(f"weights {path} hold no layer with weights")
    return blobs
