"""Lists the networks: those of the paper beside its Table 1, and those with published weights.

Parameters, floating point operations of one image (a multiplication and an addition are two) and
map sizes, at 224 and at 180 pixels, beside what the paper's Table 1 gives at 224.
"""

# Table 1: sides after each column's convolution and, where it has one, pool. Its 27 for ZF-5's
# second column is the side before the pool, by any pads: the third column's 13 follow from 13.
TABLE_1 = {
    "zf5": {"pool1": 55, "conv2": 27, "conv3": 13, "conv4": 13, "conv5": 13},
    "convnet_star5": {"conv1": 55, "pool2": 27, "pool3": 13, "conv4": 13, "conv5": 13},
    "overfeat5": {"pool1": 36, "pool2": 18, "conv3": 18, "conv5": 18},
    "overfeat7": {"pool1": 36, "pool2": 18, "conv3": 18, "conv5": 18, "conv7": 18},
}
_PUBLISHED = ("googlenet", "squeezenet1_1")
PYRAMIDS = (None, (4, 3, 2, 1), (6, 3, 2, 1))

EXAMPLES = ("",)


def define_flags() -> None:
    pass


def main(arguments: list[str]) -> int:
    del arguments
    from spp_jax.models import backbones, cost, sppnet, topology

    print("| network | bins | parameters | GFLOP at 224 | GFLOP at 180 |\n|---|---|---|---|---|")
    for name in TABLE_1:
        for levels in PYRAMIDS:
            model = sppnet.make_model(name, levels=levels)
            bins = sum(n * n for n in levels) if levels else "no SPP"
            parameters, at_224 = cost.count(model, 224)
            at_180 = f"{cost.count(model, 180)[1] / 1e9:.2f}" if levels else "-"
            print(f"| {name} | {bins} | {parameters:,} | {at_224 / 1e9:.2f} | {at_180} |")
    for name in _PUBLISHED:
        model = sppnet.make_model(name, levels=(1,), reduce="mean")
        (parameters, at_224), (_, at_180) = cost.count(model, 224), cost.count(model, 180)
        line = f"{parameters:,} | {at_224 / 1e9:.2f} | {at_180 / 1e9:.2f}"
        print(f"| {name} | 1, mean | {line} |")
    others = [n for n in backbones.network_names() if n not in (*TABLE_1, *_PUBLISHED)]
    for name in others:
        size = backbones.BACKBONES[name].size
        parameters, operations = cost.count(sppnet.make_model(name), size)
        print(f"| {name} | 50 | {parameters:,} | {operations / 1e9:.2f} at {size} | |")
    print("\n| network | layer: side at 224 (Table 1's), side at 180 | stride, first centre |")
    print("|---|---|---|")
    for name, published in TABLE_1.items():
        backbone = backbones.BACKBONES[name]
        at_224, at_180 = (topology.sides(backbone, size) for size in (224, 180))
        cells = [
            f"{layer} {at_224[layer]} ({side}), {at_180[layer]}"
            for layer, side in published.items()
        ]
        geometry = topology.geometries(backbone)[backbone.layers[-1].name]
        print(f"| {name} | {' · '.join(cells)} | {geometry.stride}, {geometry.offset0:g} |")
    return 0
