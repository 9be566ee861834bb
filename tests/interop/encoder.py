"""Writes .caffemodel bytes in the three forms Caffe has had; knows nothing of the reader.

Layers are {name: blobs}. Numbers of fields are those of caffe.proto.
"""

import struct

import numpy as np

FORMS = ("v0", "v1", "new")


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def number(field, value):
    return varint(field * 8) + varint(value)


def block(field, content):
    return varint(field * 8 + 2) + varint(len(content)) + content


def floats(field, values, is_packed=True):
    values = np.asarray(values, "<f4").ravel()
    if is_packed:
        return block(field, values.tobytes())
    return b"".join(varint(field * 8 + 5) + struct.pack("<f", v) for v in values)


def doubles(field, values, is_packed=True):
    values = np.asarray(values, "<f8").ravel()
    if is_packed:
        return block(field, values.tobytes())
    return b"".join(varint(field * 8 + 1) + struct.pack("<d", v) for v in values)


# One field of each wire type with a number that no message of caffe.proto uses.
UNKNOWN = (
    number(1000, 2**40)
    + varint(1001 * 8 + 1)
    + b"12345678"
    + block(1002, b"\xff\xff")
    + varint(1003 * 8 + 5)
    + b"1234"
)


def blob(values, *, is_legacy=False, is_packed=True, is_double=False, has_diff=False, unknown=b""):
    values = np.asarray(values)
    if is_legacy:
        axes = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(number(field, side) for field, side in enumerate(axes, start=1))
    elif is_packed:
        shape = block(7, block(1, b"".join(varint(side) for side in values.shape)))
    else:
        shape = block(7, b"".join(number(1, side) for side in values.shape))
    data = doubles(8, values, is_packed) if is_double else floats(5, values, is_packed)
    diff = floats(6, np.full(values.shape, 7.0), is_packed) if has_diff else b""
    return shape + unknown + data + diff


def layer(form, name, blobs, unknown=b""):
    """Returns the field of a NetParameter that holds a layer."""
    name = name.encode()
    if form == "new":
        content = block(1, name) + block(2, b"Convolution") + block(3, b"data") + unknown
        content += block(4, name) + number(10, 1) + b"".join(block(7, b) for b in blobs)
        return block(100, content + block(106, number(1, 96)))
    if form == "v1":
        content = block(2, b"data") + block(3, name) + unknown + block(4, name) + number(5, 4)
        return block(2, content + b"".join(block(6, b) for b in blobs) + floats(7, [1, 2], False))
    inner = block(1, name) + block(2, b"conv") + number(3, 96) + unknown
    inner += b"".join(block(50, b) for b in blobs) + floats(51, [1, 2], False)
    return block(2, block(1, inner) + block(2, b"data") + block(3, name))


def net(layers, form="new", **options):
    """Returns a whole file; `options` are those of `blob`."""
    head = block(1, b"a net") + block(3, b"data") + b"".join(number(4, n) for n in (1, 3, 8, 8))
    unknown = options.get("unknown", b"")
    body = [layer(form, "data", [])]
    for name, blobs in layers.items():
        body += [
            layer(form, name, [blob(b, **options) for b in blobs], unknown),
            layer(form, f"relu_{name}", []),
        ]
    return head + unknown + b"".join(body)


def squeezenet(num_classes=2, seed=0):
    """Random weights as SqueezeNet 1.1 was published: names, shapes and axes of its prototxt."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1": (64, 3, 3, 3)}
    inputs = 64
    widths = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
    for fire, squeezed in widths.items():
        shapes[f"fire{fire}/squeeze1x1"] = (squeezed, inputs, 1, 1)
        shapes[f"fire{fire}/expand1x1"] = (4 * squeezed, squeezed, 1, 1)
        shapes[f"fire{fire}/expand3x3"] = (4 * squeezed, squeezed, 3, 3)
        inputs = 8 * squeezed
    shapes["conv10"] = (num_classes, 512, 1, 1)
    return {
        name: [
            rng.normal(scale=0.05, size=shape).astype("f4"),
            rng.normal(scale=0.05, size=shape[0]).astype("f4"),
        ]
        for name, shape in shapes.items()
    }
