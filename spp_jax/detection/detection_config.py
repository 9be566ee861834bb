"""The configuration of detect.py: fields, defaults (the paper's, section 4) and checks."""

import dataclasses
import math

from spp_jax import errors, fields

METHODS = ("fast", "quality", "edge_boxes")
LAYERS = ("pool", "fc6", "fc7")


@dataclasses.dataclass(slots=True)
class DataConfig:
    """Images with boxes.

    `name` is "voc", VOC's layout under `path`, or a TFDS set with objects ("voc/2007",
    "digit_groups"), for which `path` is its data_dir, "" TFDS's own default.
    """

    name: str = "voc"
    path: str = fields.path_field()
    split: str = "trainval"
    eval_split: str = "test"
    # A further split whose objects are positives of the SVMs, and nothing else of it is used: as
    # ILSVRC DET's training set in section 4.5. "": none.
    positives_split: str = ""
    # Whether difficult objects are examples to learn from: the released code keeps them.
    has_difficult: bool = True


@dataclasses.dataclass(slots=True)
class ProposalConfig:
    """Where windows come from."""

    # "fast" and "quality" are OpenCV's selective search, "edge_boxes" its EdgeBoxes; of several
    # the windows of all are taken.
    methods: tuple[str, ...] = ("fast",)
    # Those of testing, if other than those of training; (): the same.
    eval_methods: tuple[str, ...] = ()
    # Windows computed elsewhere: a .npz or .json file, R-CNN's .mat, or a folder of .mat files
    # (docs/detection.md). predict, which knows no such windows, takes `eval_methods` or `methods`.
    path: str = fields.path_field()
    # Most windows of an image and method, of selective search at random; 0: all, of EdgeBoxes
    # 10,000.
    max_windows: int = 2000
    # Pixels of the original image: narrower windows are dropped, as in the released code.
    min_side: int = 20
    # Images with a longer side are made this long for the methods, in pixels.
    max_image_side: int = 500
    # 0: one for each core.
    num_processes: int = 0
    # Where the windows of images are kept; "": WORKDIR/proposals.
    cache: str = fields.path_field()


@dataclasses.dataclass(slots=True)
class FeatureConfig:
    """What is known of a window."""

    # The map that is pooled; "": the last one. fc6 and fc7 stand on the last one only.
    map: str = ""
    # Bins per side of each level; (): the network's own. fc6 and fc7 take no other.
    levels: tuple[int, ...] = ()
    # What a bin holds, "max" or "mean"; fc6 and fc7 take the network's own only.
    reduce: str = "max"
    # What the SVMs see: "pool", "fc6" or "fc7".
    layer: str = "fc7"
    # Shorter sides an image is resized to. Section 4.1's 5 scales are 480, 576, 688, 864, 1200;
    # the released code has 874 for 864.
    scales: tuple[int, ...] = (688,)
    # The scale of a window: "area" is the paper's, with about 224 x 224 pixels; "linear" the
    # released one, with a side near 13 * 16 = 208 pixels for ZF-5.
    scale_rule: str = "area"
    # The side aimed at, pixels; 0: the network's size, or for "linear" its map's side times stride.
    target_side: int = 0
    # Which cells a window covers: "paper", those centred in it; "released", with the tolerance of
    # the authors' code, 1.5 pixels for ZF-5, where there is one for the network.
    cell_rule: str = "released"
    # Images are grouped by shape, into so many groups at most (more where a group would otherwise
    # need twice the memory of its largest image); each has a program for each scale.
    num_canvases: int = 4


@dataclasses.dataclass(slots=True)
class SvmConfig:
    """One linear SVM a class (PAPER 6.1: the constants of the released code)."""

    c: float = 1e-3
    positive_weight: float = 2.0
    # The constant feature.
    bias: float = 10.0
    # Mean Euclidean norm that features are scaled to, measured on some images and windows of each.
    mean_norm: float = 20.0
    norm_images: int = 200
    norm_windows: int = 200
    # liblinear's, at which it stops; its own default, and so the released code's, is 0.1: scores
    # then move by some 0.03, and training takes half the time.
    tolerance: float = 1e-4
    # Windows that overlap every object of the class less are its negatives.
    max_negative_iou: float = 0.3
    # Negatives that overlap a better one of their image more are left out (paper: 0.7); 0: none
    # are, as in the released code.
    negative_nms: float = 0.0
    # A negative is kept if its score is above `hard`, and dropped after training below `evict`.
    hard: float = -1.0001
    evict: float = -1.2
    # Negatives added until a class is trained again.
    retrain_every: int = 2000


@dataclasses.dataclass(slots=True)
class RegressionConfig:
    """Ridge regression of boxes from pooled features (PAPER 6.5: the released constants)."""

    enabled: bool = True
    strength: float = 4000.0
    # Windows that overlap an object more are its examples.
    min_iou: float = 0.5
    # Most examples of a class.
    max_examples: int = 10_000


@dataclasses.dataclass(slots=True)
class FinetuneConfig:
    """Fine-tuning of the fully connected layers to K + 1 classes (section 4.1)."""

    enabled: bool = False
    # Windows of a step, over all its images.
    batch_size: int = 128
    images_per_batch: int = 2
    positive_share: float = 0.25
    min_positive_iou: float = 0.5
    # Negatives overlap an object by this at least, and less than a positive.
    min_negative_iou: float = 0.1
    # Beyond the paper: the first layer of the backbone to be trained; "": none is.
    from_layer: str = ""
    num_steps: int = 300_000
    learning_rate: float = 1e-4
    # The learning rate is times 0.1 from each of these on.
    drop_steps: tuple[int, ...] = (250_000,)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_lr_factor: float = 2.0
    flip: bool = True
    log_every_steps: int = 50
    checkpoint_every_steps: int = 1000


@dataclasses.dataclass(slots=True)
class TestConfig:
    """Detection proper (PAPER 6.3)."""

    min_score: float = -1.5
    nms_iou: float = 0.3
    # Of an image and class.
    max_detections: int = 100
    # predict draws and lists what is above; the released demo's.
    shown_score: float = -0.5


@dataclasses.dataclass(slots=True)
class DetectionConfig:
    """Everything a detector depends on."""

    seed: int = 0
    # The network to start from: a workdir of train.py, or what spp_jax.interop wrote. Once the
    # detector has its own copy, the network may be moved or deleted.
    checkpoint: str = fields.path_field()
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    proposals: ProposalConfig = dataclasses.field(default_factory=ProposalConfig)
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    svm: SvmConfig = dataclasses.field(default_factory=SvmConfig)
    regression: RegressionConfig = dataclasses.field(default_factory=RegressionConfig)
    test: TestConfig = dataclasses.field(default_factory=TestConfig)


# What a workdir's later runs may change without making it another detector's. Of `checkpoint` the
# network itself is compared, wherever it lies (`stages`).
FREE = {
    *("checkpoint", "data.path"),
    *("data.eval_split", "proposals.eval_methods", "proposals.num_processes"),
    *("proposals.cache", "proposals.path", "features.num_canvases", "regression.enabled"),
    *("finetune.log_every_steps", "finetune.checkpoint_every_steps"),
    *("test.min_score", "test.nms_iou", "test.max_detections", "test.shown_score"),
}


def check_same(stored: DetectionConfig, config: DetectionConfig, workdir: str) -> None:
    """Raises InputError for the first field that makes it another detector's than the workdir's."""
    changed = fields.difference(stored, config, FREE)
    if changed:
        raise errors.InputError(f"workdir {workdir} is of another config: {changed}")


def validate(config: DetectionConfig) -> None:
    """Makes paths whole and raises InputError for the first value that is wrong."""
    fields.check_types(config)
    fields.make_paths_whole(config)
    values = dict(fields.walk(config))

    def check(ok: bool, path: str, wanted: str) -> None:
        if not ok:
            raise errors.InputError(f"config.{path} must be {wanted}, got {values[path]!r}")

    for path, value in values.items():
        if isinstance(value, float):
            check(math.isfinite(value), path, "a finite number")
    positive = "svm.c svm.positive_weight svm.bias svm.mean_norm svm.norm_images svm.norm_windows"
    positive += " svm.tolerance svm.retrain_every regression.strength regression.max_examples"
    positive += " finetune.batch_size finetune.images_per_batch finetune.num_steps"
    positive += " finetune.learning_rate finetune.bias_lr_factor finetune.log_every_steps"
    positive += " finetune.checkpoint_every_steps"
    positive += " features.num_canvases test.max_detections proposals.max_image_side"
    not_negative = "seed proposals.max_windows proposals.min_side proposals.num_processes"
    not_negative += " features.target_side finetune.weight_decay"
    fields.check_numbers(config, positive=positive, not_negative=not_negative)
    shares = "svm.max_negative_iou svm.negative_nms regression.min_iou test.nms_iou"
    shares += " finetune.positive_share finetune.min_positive_iou finetune.min_negative_iou"
    for path in shares.split():
        check(0 <= values[path] <= 1, path, "from 0 to 1")
    check(config.svm.max_negative_iou > 0, "svm.max_negative_iou", "more than 0")
    tune = config.finetune
    check(
        tune.min_negative_iou < tune.min_positive_iou,
        "finetune.min_negative_iou",
        f"less than config.finetune.min_positive_iou={tune.min_positive_iou}",
    )
    check(0 <= tune.momentum < 1, "finetune.momentum", "from 0 to below 1")
    for path, choices in {
        "features.layer": LAYERS,
        "features.reduce": ("max", "mean"),
        "features.scale_rule": ("area", "linear"),
        "features.cell_rule": ("paper", "released"),
    }.items():
        check(values[path] in choices, path, f"one of {', '.join(choices)}")
    scales = config.features.scales
    is_ordered = list(scales) == sorted(set(scales)) and min(scales, default=0) > 0
    check(is_ordered, "features.scales", "increasing whole numbers of pixels, at least one")
    levels = config.features.levels
    check(all(n > 0 for n in levels), "features.levels", "whole numbers of at least 1")
    for path in ("proposals.methods", "proposals.eval_methods"):
        check(set(values[path]) <= set(METHODS), path, f"of {', '.join(METHODS)}")
    has_any = bool(config.proposals.methods or config.proposals.path)
    check(has_any, "proposals.methods", f"of {', '.join(METHODS)}")
    check(
        tune.batch_size % tune.images_per_batch == 0,
        "finetune.batch_size",
        f"a multiple of config.finetune.images_per_batch={tune.images_per_batch}",
    )
    drops = tune.drop_steps
    check(list(drops) == sorted(set(drops)), "finetune.drop_steps", "increasing")
    if config.features.map and config.features.layer != "pool":
        raise errors.InputError(
            f"config.features.map={config.features.map} can be pooled only for "
            f"config.features.layer=pool, not {config.features.layer}"
        )
