"""The convolutional networks as data: the layers between an image and the pyramid."""

from spp_jax.models.topology import LRN, Backbone, Block, Conv, MaxPool

# Table 1 with the pads, strides and initial biases of the released model definition.
ZF5 = Backbone(
    name="zf5",
    layers=(
        Conv("conv1", 96, 7, stride=2, padding=1),
        LRN("norm1"),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 256, 5, stride=2, bias=1.0),
        LRN("norm2"),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, 3, padding=1),
        Conv("conv4", 384, 3, padding=1, bias=1.0),
        Conv("conv5", 256, 3, padding=1, bias=1.0),
    ),
    last_pool=MaxPool("pool5", 3, 2),
    window_offset=6.5,
)

# Not of the paper: a quarter of ZF-5's widths, at half the side, for two cores. conv2's stride of 1
# makes its maps at 112 and 90 pixels the 13 x 13 and 10 x 10 of ZF-5's at 224 and 180. So few
# channels do not learn from initial weights of 0.01. With larger weights, normalisation as strong
# as in "digits" keeps the first steps from ending in dead units.
ZF5_SMALL = Backbone(
    name="zf5_small",
    layers=(
        Conv("conv1", 24, 7, stride=2, padding=1),
        LRN("norm1", "within", size=5, alpha=1.0),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 64, 5, padding=2),
        LRN("norm2", "within", size=5, alpha=1.0),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 96, 3, padding=1),
        Conv("conv4", 96, 3, padding=1),
        Conv("conv5", 64, 3, padding=1),
    ),
    last_pool=MaxPool("pool5", 3, 2),
    size=112,
    hidden=(512, 512),
    hidden_bias=0.0,
    kernel_std=None,
    scale=1 / 64,
)

# AlexNet with its pools after conv2 and conv3, without groups. The paper gives no pads: these make
# Table 1's 55, 27 and 13. Normalisation and initial biases, unpublished, are as in ZF-5.
CONVNET_STAR5 = Backbone(
    name="convnet_star5",
    layers=(
        Conv("conv1", 96, 11, stride=4, padding=2),
        LRN("norm1"),
        Conv("conv2", 256, 5, padding=2, bias=1.0),
        LRN("norm2"),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, 3, padding=1),
        MaxPool("pool3", 3, 2),
        Conv("conv4", 384, 3, padding=1, bias=1.0),
        Conv("conv5", 256, 3, padding=1, bias=1.0),
    ),
    last_pool=MaxPool("pool5", 3, 2),
)


def _overfeat(name: str, depth: int) -> Backbone:
    # Only a pad of 1 in conv2 gives both Table 1's side of 18 and, as in the released code, a first
    # centre at pixel 15 and a stride of 12; the map after pool1 is then 37, not Table 1's 36.
    later = (
        Conv(f"conv{i}", 512, 3, padding=1, bias=0.0 if i == 3 else 1.0)
        for i in range(3, depth + 1)
    )
    return Backbone(
        name=name,
        layers=(
            Conv("conv1", 96, 7, stride=2),
            MaxPool("pool1", 3, 3),
            LRN("norm1"),
            Conv("conv2", 256, 5, padding=1, bias=1.0),
            MaxPool("pool2", 2, 2),
            *later,
        ),
        last_pool=MaxPool(f"pool{depth}", 3, 3),
        window_offset=6.5,
    )


OVERFEAT5 = _overfeat("overfeat5", 5)
OVERFEAT7 = _overfeat("overfeat7", 7)


def _inception(name: str, *widths: int) -> Block:
    """An inception module; widths in the order of its layers' names below."""
    one, reduce3, three, reduce5, five, pooled = widths
    return Block(
        name,
        branches=(
            (Conv("1x1", one, 1, bias=0.2),),
            (
                Conv("3x3_reduce", reduce3, 1, bias=0.2),
                Conv("3x3", three, 3, padding=1, bias=0.2),
            ),
            (
                Conv("5x5_reduce", reduce5, 1, bias=0.2),
                Conv("5x5", five, 5, padding=2, bias=0.2),
            ),
            (MaxPool("pool", 3, 1, padding=1), Conv("pool_proj", pooled, 1, bias=0.2)),
        ),
    )


# Szegedy et al. 2014, layer for layer and name for name as BVLC published it with its weights.
GOOGLENET = Backbone(
    name="googlenet",
    layers=(
        Block("conv1", (Conv("7x7_s2", 64, 7, stride=2, padding=3, bias=0.2),)),
        Block("pool1", (MaxPool("3x3_s2", 3, 2), LRN("norm1", "across", 5, 1e-4))),
        Block(
            "conv2",
            (
                Conv("3x3_reduce", 64, 1, bias=0.2),
                Conv("3x3", 192, 3, padding=1, bias=0.2),
                LRN("norm2", "across", 5, 1e-4),
            ),
        ),
        Block("pool2", (MaxPool("3x3_s2", 3, 2),)),
        _inception("inception_3a", 64, 96, 128, 16, 32, 32),
        _inception("inception_3b", 128, 128, 192, 32, 96, 64),
        Block("pool3", (MaxPool("3x3_s2", 3, 2),)),
        _inception("inception_4a", 192, 96, 208, 16, 48, 64),
        _inception("inception_4b", 160, 112, 224, 24, 64, 64),
        _inception("inception_4c", 128, 128, 256, 24, 64, 64),
        _inception("inception_4d", 112, 144, 288, 32, 64, 64),
        _inception("inception_4e", 256, 160, 320, 32, 128, 128),
        Block("pool4", (MaxPool("3x3_s2", 3, 2),)),
        _inception("inception_5a", 256, 160, 320, 32, 128, 128),
        _inception("inception_5b", 384, 192, 384, 48, 128, 128),
    ),
    hidden=(),
    hidden_bias=0.0,
    kernel_std=None,
    mean=(123.0, 117.0, 104.0),
)


def _fire(name: str, squeezed: int, expanded: int) -> Block:
    return Block(
        name,
        layers=(Conv("squeeze1x1", squeezed, 1),),
        branches=(
            (Conv("expand1x1", expanded, 1),),
            (Conv("expand3x3", expanded, 3, padding=1),),
        ),
    )


# Iandola et al. 2016, version 1.1 as published with its weights.
SQUEEZENET1_1 = Backbone(
    name="squeezenet1_1",
    layers=(
        Conv("conv1", 64, 3, stride=2),
        MaxPool("pool1", 3, 2),
        _fire("fire2", 16, 64),
        _fire("fire3", 16, 64),
        MaxPool("pool3", 3, 2),
        _fire("fire4", 32, 128),
        _fire("fire5", 32, 128),
        MaxPool("pool5", 3, 2),
        _fire("fire6", 48, 192),
        _fire("fire7", 48, 192),
        _fire("fire8", 64, 256),
        _fire("fire9", 64, 256),
    ),
    size=227,
    hidden=(),
    hidden_bias=0.0,
    kernel_std=None,
    mean=(123.0, 117.0, 104.0),
    cell_classifier="conv10",
)

# Not of the paper: for digit_scenes on two cores. One large first kernel with a stride of 4 trains
# several times faster than a small one and a pool.
DIGITS = Backbone(
    name="digits",
    layers=(
        Conv("conv1", 32, 7, stride=4, padding=3),
        # Strong enough to make faint digits as loud as bold ones.
        LRN("norm1", "within", size=5, alpha=1.0),
        Conv("conv2", 64, 3, padding=1),
        Conv("conv3", 64, 3, padding=1),
        MaxPool("pool3", 3, 2),
        Conv("conv4", 96, 3, padding=1),
        Conv("conv5", 96, 3, padding=1),
    ),
    last_pool=MaxPool("pool5", 2, 2),
    size=64,
    hidden=(256,),
    hidden_bias=0.0,
    kernel_std=None,
    scale=1 / 64,
)

BACKBONES = {
    backbone.name: backbone
    for backbone in (
        *(ZF5, CONVNET_STAR5, OVERFEAT5, OVERFEAT7),
        *(GOOGLENET, SQUEEZENET1_1),
        *(ZF5_SMALL, DIGITS),
    )
}


def network_names() -> tuple[str, ...]:
    """Returns the names that `make_model` takes."""
    return tuple(BACKBONES)
