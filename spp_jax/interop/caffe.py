"""Reads the weights of a .caffemodel without Caffe.

It is one protobuf message: fields, each a key (number * 8 + wire type) and a value. Only the few
fields of caffe.proto that carry names and weights are understood; the others are skipped.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spp_jax import errors
from spp_jax.runs import files, memory

# Field numbers of caffe.proto. A NetParameter holds LayerParameters or, before December 2014,
# V1LayerParameters; the oldest of those only wrap a V0LayerParameter.
_NET_LAYER, _NET_V1_LAYER = 100, 2
_NAME, _BLOBS = 1, 7
_V1_NAME, _V1_BLOBS, _V1_V0 = 4, 6, 1
_V0_NAME, _V0_BLOBS = 1, 50
_BLOB_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_DOUBLE_DATA, _BLOB_SHAPE = 5, 8, 7
_SHAPE_DIM = 1

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_MAX_AXES = 32  # Caffe's kMaxBlobAxes
# The most fields of one message: each is an object of Python, of which two bytes can make one.
# A network has a few hundred layers, a layer some tens of fields.
MAX_FIELDS = 2**16


class _DamagedError(Exception):
    """The bytes are no protobuf message of the expected kind; the text says why."""


class _Field(NamedTuple):
    """A field: number, wire type, value if it is a varint, and where its key and value lie.

    The key begins at byte `key`; the value is at [start, stop).
    """

    number: int
    wire: int
    value: int
    key: int
    start: int
    stop: int


def read_caffemodel(path: str) -> dict[str, list[np.ndarray]]:
    """Returns {layer: its blobs} of the layers that have any, in the order of the file.

    Kernels are (outputs, inputs, height, width) or (outputs, inputs), biases (outputs,), as the
    file says; files of before 2015 pad all shapes to four axes with leading ones. Blobs are
    read-only float32, or float64 where they were saved so.

    Raises:
        InputError: the file cannot be read, is damaged, or is no .caffemodel.
    """
    try:
        data = files.read_bytes(path, memory.physical())
    except OSError as e:
        raise errors.InputError(f"weights {path} cannot be read: {e.strerror}") from e
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for field in _fields(data, 0, len(data)):
            if field.wire != _LENGTH or field.number not in (_NET_LAYER, _NET_V1_LAYER):
                continue
            name, blobs = _layer(data, field)
            if not blobs:
                continue
            if name in layers:
                raise _DamagedError(f"layer {name} is there twice")
            layers[name] = blobs
    except _DamagedError as e:
        raise errors.InputError(f"weights {path} are damaged or no .caffemodel: {e}") from e
    if not layers:
        raise errors.InputError(f"weights {path} hold no layer with weights")
    return layers


def _layer(data: bytes, outer: _Field) -> tuple[str, list[np.ndarray]]:
    is_new = outer.number == _NET_LAYER
    name_field, blobs_field = (_NAME, _BLOBS) if is_new else (_V1_NAME, _V1_BLOBS)
    fields = [f for f in _fields(data, outer.start, outer.stop) if f.wire == _LENGTH]
    for field in fields:
        if not is_new and field.number == _V1_V0:
            name_field, blobs_field = _V0_NAME, _V0_BLOBS
            fields = [f for f in _fields(data, field.start, field.stop) if f.wire == _LENGTH]
            break
    name = "".join(_text(data, f) for f in fields if f.number == name_field)
    try:
        return name, [_blob(data, f) for f in fields if f.number == blobs_field]
    except _DamagedError as e:
        raise _DamagedError(f"layer {name}: {e}") from e


def _blob(data: bytes, outer: _Field) -> np.ndarray:
    legacy, shape = [0, 0, 0, 0], None
    floats: list[np.ndarray] = []
    doubles: list[np.ndarray] = []
    at, count = outer.start, 0
    while at < outer.stop:
        count = _count(count, outer.start)
        field = _field(data, at, outer.stop)
        at = field.stop
        if field.number == _BLOB_DATA and field.wire in (_LENGTH, _FOUR_BYTES):
            values, at = _numbers(data, field, outer.stop, np.dtype("<f4"))
            floats.append(values)
        elif field.number == _BLOB_DOUBLE_DATA and field.wire in (_LENGTH, _EIGHT_BYTES):
            values, at = _numbers(data, field, outer.stop, np.dtype("<f8"))
            doubles.append(values)
        elif field.number == _BLOB_SHAPE and field.wire == _LENGTH:
            shape = _dims(data, field)
        elif field.number in _BLOB_LEGACY_SHAPE and field.wire == _VARINT:
            legacy[field.number - 1] = field.value
    shape = tuple(legacy) if shape is None else shape
    chunks = doubles or floats
    values = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, "<f4"), *chunks])
    if len(shape) > _MAX_AXES or 0 in shape or math.prod(shape) != values.size:
        raise _DamagedError(f"a blob of shape {shape} holds {values.size} values")
    return values.reshape(shape)


def _dims(data: bytes, outer: _Field) -> tuple[int, ...]:
    dims = []
    for field in _fields(data, outer.start, outer.stop):
        if field.number != _SHAPE_DIM:
            continue
        if field.wire == _VARINT:
            dims.append(field.value)
        elif field.wire == _LENGTH:
            at = field.start
            while at < field.stop and len(dims) <= _MAX_AXES:  # one more is refused by `_blob`
                dim, at = _varint(data, at, field.stop)
                dims.append(dim)
    return tuple(dims)


def _numbers(data: bytes, first: _Field, stop: int, dtype: np.dtype) -> tuple[np.ndarray, int]:
    """Returns the numbers that begin at a field, packed or one per field, and where they end.

    The numbers are a view of `data`. Unpacked numbers are read at once with all that follow under
    the same key, as a layer can hold millions.
    """
    if first.wire == _LENGTH:
        size = first.stop - first.start
        if size % dtype.itemsize:
            raise _DamagedError(f"{size} bytes of numbers of {dtype.itemsize} bytes")
        return np.frombuffer(data, dtype, size // dtype.itemsize, first.start), first.stop
    width = first.start - first.key
    item = np.dtype([("key", np.uint8, (width,)), ("number", dtype)])
    items = np.frombuffer(data, item, (stop - first.key) // item.itemsize, first.key)
    breaks = np.flatnonzero((items["key"] != items["key"][0]).any(axis=1))
    count = int(breaks[0]) if breaks.size else len(items)
    return items["number"][:count], first.key + count * item.itemsize


def _fields(data: bytes, start: int, stop: int) -> Iterator[_Field]:
    """Yields the fields of a message that lies at data[start:stop]."""
    at, count = start, 0
    while at < stop:
        count = _count(count, start)
        field = _field(data, at, stop)
        yield field
        at = field.stop


def _count(count: int, start: int) -> int:
    """Returns the number of fields so far of the message at byte `start`, with the next one."""
    if count == MAX_FIELDS:
        raise _DamagedError(f"a message of more than {MAX_FIELDS:,} fields at byte {start}")
    return count + 1


def _field(data: bytes, key: int, stop: int) -> _Field:
    tag, start = _varint(data, key, stop)
    number, wire = tag >> 3, tag & 7
    value, end = 0, start
    if wire == _VARINT:
        value, end = _varint(data, start, stop)
    elif wire == _LENGTH:
        size, start = _varint(data, start, stop)
        end = start + size
    elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
        end = start + (8 if wire == _EIGHT_BYTES else 4)
    else:
        raise _DamagedError(f"a field of wire type {wire} at byte {key}")
    if number == 0:
        raise _DamagedError(f"a field of number 0 at byte {key}")
    if end > stop:
        raise _DamagedError(f"it ends within the field at byte {key}")
    return _Field(number, wire, value, key, start, end)


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Returns a number of seven bits per byte, the lowest first, and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= stop:
            raise _DamagedError(f"it ends within the number at byte {at}")
        byte = data[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise _DamagedError(f"a number of more than 10 bytes at byte {at}")


def _text(data: bytes, field: _Field) -> str:
    try:
        return data[field.start : field.stop].decode()
    except UnicodeDecodeError as e:
        raise _DamagedError(f"no text at byte {field.start}") from e
