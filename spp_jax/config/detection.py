"""The config of detection; its defaults are the paper's (section 4)."""

import dataclasses

from spp_jax import errors
from spp_jax.config.features import check_bins
from spp_jax.config.fields import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_FLOAT,
    MAX_LEVEL,
    MAX_PROCESSES,
    MAX_SIDE,
    field,
    path_field,
)

METHODS = ("fast", "quality", "edge_boxes")


@dataclasses.dataclass(slots=True)
class DetectionDataConfig:
    """Images with boxes."""

    name: str = field(
        "voc",
        "voc: VOC's layout under data.path; or a TFDS set with objects (voc/2007, digit_groups).",
    )
    path: str = path_field(
        "The folder; for TFDS sets their data_dir, empty for TFDS's own default.", may_change=True
    )
    split: str = field("trainval", "The split to train on.")
    eval_split: str = field("test", "The split to test on; empty: none.", may_change=True)
    positives_split: str = field(
        "",
        "A further split whose objects are positives of the SVMs, and nothing else of it is used: "
        "as ILSVRC DET's training set in section 4.5. Empty: none.",
    )
    has_difficult: bool = field(
        True,
        "Whether difficult objects are examples to learn from: the released code keeps them.",
    )


@dataclasses.dataclass(slots=True)
class ProposalConfig:
    """Where windows come from."""

    methods: tuple[str, ...] = field(
        ("fast",),
        "fast and quality are OpenCV's selective search, edge_boxes its EdgeBoxes; of several the "
        "windows of all are taken.",
        one_of=METHODS,
    )
    eval_methods: tuple[str, ...] = field(
        (),
        "Those of testing, if other than those of training; (): the same.",
        one_of=METHODS,
        may_change=True,
    )
    path: str = path_field(
        "Windows computed elsewhere: a .npz or .json file, R-CNN's .mat, or a folder of .mat files "
        "(docs/detection.md). predict, which knows no such windows, takes eval_methods or methods.",
        may_change=True,
    )
    max_windows: int = field(
        2000,
        "Most windows of an image and method, of selective search at random; 0: all, of EdgeBoxes "
        "10,000.",
        at_least=0,
        ceiling=1_000_000,
    )
    min_side: int = field(
        20,
        "Pixels of the original image: narrower windows are dropped, as in the released code.",
        at_least=0,
        ceiling=MAX_SIDE,
    )
    max_image_side: int = field(
        500,
        "Images with a longer side are made this long for the methods, in pixels.",
        above=0,
        ceiling=MAX_SIDE,
    )
    num_processes: int = field(
        0,
        "Processes that find windows; 0: one for each core.",
        at_least=0,
        may_change=True,
        ceiling=MAX_PROCESSES,
    )
    cache: str = path_field(
        "The folder that keeps the windows of images; empty: WORKDIR/proposals.", may_change=True
    )


@dataclasses.dataclass(slots=True)
class FeatureConfig:
    """What is known of a window."""

    map: str = field(
        "", "The map that is pooled; empty: the last one. fc6 and fc7 stand on the last one only."
    )
    levels: tuple[int, ...] = field(
        (),
        "Bins per side of each level; (): the network's own. fc6 and fc7 take no other.",
        at_least=1,
        ceiling=MAX_LEVEL,
    )
    reduce: str = field(
        "max",
        "What a bin holds; fc6 and fc7 take the network's own only.",
        one_of=("max", "mean"),
    )
    layer: str = field("fc7", "What the SVMs see.", one_of=("pool", "fc6", "fc7"))
    scales: tuple[int, ...] = field(
        (688,),
        "Shorter sides an image is resized to, pixels. Section 4.1's 5 scales are 480, 576, 688, "
        "864, 1200; the released code has 874 for 864.",
        above=0,
        is_increasing=True,
        is_filled=True,
        ceiling=MAX_SIDE,
    )
    scale_rule: str = field(
        "area",
        "The scale of a window: area is the paper's, with about 224 x 224 pixels; linear the "
        "released one, with a side near 13 * 16 = 208 pixels for ZF-5.",
        one_of=("area", "linear"),
    )
    target_side: int = field(
        0,
        "The side aimed at, pixels; 0: the network's size, or for linear its map's side times "
        "stride.",
        at_least=0,
        ceiling=MAX_SIDE,
    )
    cell_rule: str = field(
        "released",
        "Which cells a window covers: paper, those centred in it; released, with the tolerance of "
        "the authors' code, 1.5 pixels for ZF-5, where there is one for the network.",
        one_of=("paper", "released"),
    )
    num_canvases: int = field(
        4,
        "Images are grouped by shape, into so many groups at most (more where a group would "
        "otherwise need twice the memory of its largest image); each has one program per scale.",
        above=0,
        may_change=True,
        ceiling=1_000,
    )


@dataclasses.dataclass(slots=True)
class MiningConfig:
    """One linear SVM per class: the constants of the released code."""

    c: float = field(1e-3, "The penalty C of an error.", above=0, ceiling=MAX_FLOAT)
    positive_weight: float = field(
        2.0, "That of a positive is C times it.", above=0, ceiling=MAX_FLOAT
    )
    bias: float = field(10.0, "The constant feature.", above=0, ceiling=MAX_FLOAT)
    mean_norm: float = field(
        20.0,
        "Mean Euclidean norm that features are scaled to, measured on some windows of some images.",
        above=0,
        ceiling=MAX_FLOAT,
    )
    norm_images: int = field(200, "Images whose windows are measured.", above=0, ceiling=MAX_COUNT)
    norm_windows: int = field(200, "Windows of each that are measured.", above=0, ceiling=MAX_COUNT)
    tolerance: float = field(
        1e-4,
        "liblinear's, at which it stops; its own default, and so the released code's, is 0.1: "
        "scores then move by some 0.03, and training takes half the time.",
        above=0,
        ceiling=MAX_FLOAT,
    )
    max_negative_iou: float = field(
        0.3,
        "Windows that overlap every object of the class less are its negatives.",
        above=0,
        at_most=1,
    )
    negative_nms: float = field(
        0.0,
        "Negatives that overlap a better one of their image more are left out (paper: 0.7); 0: "
        "none are, as in the released code.",
        at_least=0,
        at_most=1,
    )
    hard: float = field(-1.0001, "A negative is kept if its score is above it.", ceiling=MAX_FLOAT)
    evict: float = field(
        -1.2, "After training, a negative is dropped if its score is below it.", ceiling=MAX_FLOAT
    )
    retrain_every: int = field(
        2000, "Negatives added until a class is trained again.", above=0, ceiling=MAX_COUNT
    )


@dataclasses.dataclass(slots=True)
class RegressionConfig:
    """Ridge regression of boxes from pooled features: the released constants."""

    enabled: bool = field(True, "Whether boxes are moved.", may_change=True)
    strength: float = field(4000.0, "Lambda, of the squared weights.", above=0, ceiling=10**12)
    min_iou: float = field(
        0.5, "Windows that overlap an object more are its examples.", at_least=0, at_most=1
    )
    max_examples: int = field(10_000, "Most examples of a class.", above=0, ceiling=MAX_COUNT)


@dataclasses.dataclass(slots=True)
class FinetuneConfig:
    """Fine-tuning of the fully connected layers to K + 1 classes (section 4.1)."""

    enabled: bool = field(False, "Whether the network is fine-tuned.")
    batch_size: int = field(
        128, "Windows of a step, over all its images.", above=0, ceiling=MAX_BATCH
    )
    images_per_batch: int = field(2, "Images of a step.", above=0, ceiling=MAX_BATCH)
    positive_share: float = field(
        0.25, "Share of the windows that are positives.", at_least=0, at_most=1
    )
    min_positive_iou: float = field(
        0.5, "Positives overlap an object by this at least.", at_least=0, at_most=1
    )
    min_negative_iou: float = field(
        0.1,
        "Negatives overlap an object by this at least, and less than a positive.",
        at_least=0,
        at_most=1,
    )
    from_layer: str = field(
        "", "Beyond the paper: the first layer of the backbone to be trained; empty: none is."
    )
    num_steps: int = field(300_000, "Steps to train.", above=0, ceiling=MAX_COUNT)
    learning_rate: float = field(
        1e-4, "The learning rate to begin with.", above=0, ceiling=MAX_FLOAT
    )
    drop_steps: tuple[int, ...] = field(
        (250_000,),
        "The learning rate is times 0.1 from each of these on.",
        is_increasing=True,
        ceiling=MAX_COUNT,
    )
    momentum: float = field(0.9, "Of SGD.", at_least=0, below=1)
    weight_decay: float = field(
        5e-4, "Of every parameter that is trained.", at_least=0, ceiling=MAX_FLOAT
    )
    bias_lr_factor: float = field(
        2.0, "The learning rate of biases is that of weights times it.", above=0, ceiling=MAX_FLOAT
    )
    flip: bool = field(True, "Whether to mirror half of the images.")
    log_every_steps: int = field(
        50, "Steps from one line to the next.", above=0, may_change=True, ceiling=MAX_COUNT
    )
    checkpoint_every_steps: int = field(
        1000, "Steps from one checkpoint to the next.", above=0, may_change=True, ceiling=MAX_COUNT
    )


@dataclasses.dataclass(slots=True)
class TestConfig:
    """Detection proper."""

    min_score: float = field(
        -1.5, "Windows of lower scores are left out.", may_change=True, ceiling=MAX_FLOAT
    )
    nms_iou: float = field(
        0.3,
        "Detections that overlap a better one of their class more are left out.",
        at_least=0,
        at_most=1,
        may_change=True,
    )
    max_detections: int = field(
        100, "Most detections of an image and class.", above=0, may_change=True, ceiling=1_000_000
    )
    shown_score: float = field(
        -0.5,
        "predict draws and lists what is above; the released demo's.",
        may_change=True,
        ceiling=MAX_FLOAT,
    )
    fc6_rank: int = field(
        0,
        "Beyond the paper: fc6's matrix is replaced by two that are nearest to it of this rank, "
        "1024 say, which takes a CPU a third of the time (docs/detection.md); 0: it is not.",
        at_least=0,
        may_change=True,
        ceiling=MAX_SIDE,
    )


@dataclasses.dataclass(slots=True)
class DetectionConfig:
    """Everything a detector depends on."""

    seed: int = field(0, "Of everything that is drawn.", at_least=0, ceiling=MAX_COUNT)
    checkpoint: str = path_field(
        "The network to start from: a workdir of train.py, or what spp_jax.interop wrote. Once "
        "the detector has its own copy, the network may be moved or deleted.",
        # The network itself is compared, wherever it lies (`detection.workdir`).
        may_change=True,
    )
    data: DetectionDataConfig = dataclasses.field(default_factory=DetectionDataConfig)
    proposals: ProposalConfig = dataclasses.field(default_factory=ProposalConfig)
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    svm: MiningConfig = dataclasses.field(default_factory=MiningConfig)
    regression: RegressionConfig = dataclasses.field(default_factory=RegressionConfig)
    test: TestConfig = dataclasses.field(default_factory=TestConfig)

    def check_together(self, stored: "DetectionConfig | None" = None) -> None:
        """Raises InputError for the first value that does not fit another; see `validate`."""
        tune, features = self.finetune, self.features
        if stored is None or features.levels != stored.features.levels:
            check_bins(features.levels, "config.features.levels")
        if not (self.proposals.methods or self.proposals.path):
            raise errors.InputError(f"config.proposals.methods must be of {', '.join(METHODS)}")
        if not tune.min_negative_iou < tune.min_positive_iou:
            raise errors.InputError(
                f"config.finetune.min_negative_iou must be less than config.finetune."
                f"min_positive_iou={tune.min_positive_iou}, got {tune.min_negative_iou}"
            )
        if tune.batch_size % tune.images_per_batch:
            raise errors.InputError(
                f"config.finetune.batch_size must be a multiple of config.finetune."
                f"images_per_batch={tune.images_per_batch}, got {tune.batch_size}"
            )
        if self.test.fc6_rank and features.layer == "pool":
            raise errors.InputError(
                f"config.test.fc6_rank={self.test.fc6_rank}: config.features.layer=pool does not "
                "use fc6"
            )
        if features.map and features.layer != "pool":
            raise errors.InputError(
                f"config.features.map={features.map} can be pooled only for "
                f"config.features.layer=pool, not {features.layer}"
            )
