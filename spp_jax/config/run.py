"""The config of training and evaluation: train.py's presets return it, checkpoints store it."""

import dataclasses
from typing import Any

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

PROTOCOLS = ("center", "full", "warp", "ten_view", "multi_view")


def _is_none(levels: Any) -> bool:
    return isinstance(levels, tuple) and (not levels or (len(levels) == 1 and levels[0] is None))


@dataclasses.dataclass(slots=True)
class ModelConfig:
    """The network: arguments of `spp_jax.make_model`."""

    name: str = field("zf5", "The network: a name that `python -m spp_jax.models` lists.")
    levels: tuple[int, ...] | None = field(
        (6, 3, 2, 1),
        'Bins per side of each level of the pyramid; None, on the command line also "()", is the '
        "network without SPP.",
        # What the command line makes of "()" and "None".
        normalize=lambda levels: None if _is_none(levels) else levels,
        ceiling=MAX_LEVEL,
    )
    reduce: str = field("max", "What a bin holds: the max or the mean of its cells.")
    num_classes: int = field(
        0,
        "Outputs of the network; 0: as many as the training data has classes.",
        at_least=0,
        ceiling=100_000,
    )
    dtype: str = field(
        "float32", "Of the computation, float32 or bfloat16; parameters are float32."
    )
    dropout: float = field(0.5, "Share of fc6's and fc7's outputs that drop out in training.")
    lrn: str | None = field(
        None, "None: normalisation as the network has it; within or across makes all of one kind."
    )


@dataclasses.dataclass(slots=True)
class DataConfig:
    """What is read, and how an image becomes a view."""

    name: str = field(
        "folder",
        "folder: class folders, or train/ and val/ or test/ of them, under data.path; "
        "digit_scenes, the embedded set; or any TFDS classification set.",
    )
    path: str = path_field(
        "The folder; for TFDS sets their data_dir, empty for TFDS's own default.", may_change=True
    )
    split: str = field("train", "The split to train on.")
    eval_split: str = field(
        "", "Empty: validation, val, valid, dev or test, the first that the data has."
    )
    held_out: float = field(
        0.1,
        "Share held out by seed where a folder has no split of its own.",
        at_least=0,
        below=1,
    )
    batch_size: int = field(
        128, "Examples of a step, over all devices and hosts.", above=0, ceiling=MAX_BATCH
    )
    num_workers: int = field(
        0,
        "0: threads of the main process, enough while decoding keeps up; else loader processes.",
        at_least=0,
        may_change=True,
        ceiling=MAX_PROCESSES,
    )
    cache_mb: int = field(
        0,
        "MiB of decoded training images to keep in memory; each loader process has its own.",
        at_least=0,
        may_change=True,
        ceiling=2**24,
    )
    view: str = field(
        "corners",
        "corners: the centre or a corner of the whole image (section 3.1), data.crop_size pixels "
        "of an image whose shorter side is data.shorter_side, resized to the step's size. warp: "
        "the whole image, its aspect given up, but for a share of each side, up to data.jitter, "
        "cut off at random; JPEGs are decoded no smaller than data.shorter_side.",
        one_of=("corners", "warp"),
    )
    shorter_side: int = field(256, "Pixels; see data.view.", above=0, ceiling=MAX_SIDE)
    crop_size: int = field(224, "Pixels; see data.view.", above=0, ceiling=MAX_SIDE)
    jitter: float = field(0.0, "See data.view.", at_least=0, below=1)
    max_megapixels: float = field(
        89.478485,
        "Larger images are refused, before they are decoded; WebP, which takes more memory, at "
        "three quarters of it. By default no image takes more than 1 GiB to decode. Training and "
        "evaluation know it.",
        above=0,
        # No ceiling: limits of images hold for the configs of strangers' checkpoints too.
        at_most=1_000,
        may_change=True,
    )
    max_side_ratio: float = field(
        50.0,
        "Images whose longer side is more times the shorter one are refused; resized by their "
        "shorter side they would be as many times larger. Training and evaluation know it.",
        at_least=1,
        at_most=MAX_SIDE,
        may_change=True,
    )
    mean: str = field(
        "constant",
        "What is subtracted from images: the network's own constant (128 for the paper's "
        "networks), or the mean of data.mean_examples training images by channel or, as an image, "
        "by pixel; that is warped to other sizes (appendix A). It is computed once and stored in "
        "the checkpoint. With init_from it is that of the network started from, whatever is said "
        "here.",
        one_of=("constant", "channel", "image"),
    )
    mean_examples: int = field(10_000, "See data.mean; 0: all.", at_least=0, ceiling=MAX_COUNT)
    max_refused: float = field(
        0.01,
        "Training stops when a larger share of the examples turns out to be unreadable.",
        at_least=0,
        below=1,
        may_change=True,
    )


@dataclasses.dataclass(slots=True)
class TrainConfig:
    """The recipe of section 3.1."""

    num_epochs: int = field(70, "Epochs to train.", above=0, ceiling=1_000_000)
    steps_per_epoch: int = field(
        0, "0: as many as the examples fill.", at_least=0, ceiling=MAX_COUNT
    )
    sizes: tuple[int, ...] = field(
        (224, 180),
        "Sides of the square images to train on, pixels; see train.size_schedule.",
        ceiling=MAX_SIDE,
    )
    size_schedule: str = field(
        "epoch",
        "epoch: whole epochs alternate train.sizes, and the last epoch is at the first of them. "
        "random: one size per epoch, drawn from the whole numbers from the smallest to the "
        "largest.",
        one_of=("epoch", "random"),
    )
    learning_rate: float = field(
        0.01, "The learning rate to begin with.", above=0, ceiling=MAX_FLOAT
    )
    lr_schedule: str = field(
        "plateau",
        "plateau: times train.lr_factor whenever the training loss, averaged over one round of "
        "sizes, has not improved for train.patience rounds, train.num_drops times at most. step: "
        "times train.lr_factor at each of train.drop_epochs.",
        one_of=("plateau", "step"),
    )
    lr_factor: float = field(0.1, "See train.lr_schedule.", above=0, below=1)
    patience: int = field(3, "See train.lr_schedule.", above=0, ceiling=MAX_COUNT)
    num_drops: int = field(2, "See train.lr_schedule.", at_least=0, ceiling=MAX_COUNT)
    drop_epochs: tuple[int, ...] = field(
        (), "See train.lr_schedule.", at_least=0, is_increasing=True, ceiling=1_000_000
    )
    momentum: float = field(0.9, "Of SGD.", at_least=0, below=1)
    bias_lr_factor: float = field(
        1.0, "The learning rate of biases is that of weights times it.", above=0, ceiling=MAX_FLOAT
    )
    weight_decay: float = field(
        5e-4, "Of every parameter, as released.", at_least=0, ceiling=MAX_FLOAT
    )
    flip: bool = field(True, "Whether to mirror half of the images.")
    color_noise: float = field(
        0.1,
        "Deviation of AlexNet's colour noise, in units of the principal components' own; 0: none.",
        at_least=0,
        ceiling=MAX_FLOAT,
    )
    eval_every_epochs: int = field(
        1,
        "Epochs from one evaluation to the next; 0: none.",
        at_least=0,
        may_change=True,
        ceiling=MAX_COUNT,
    )
    eval_protocol: str = field(
        "center", "The test views of evaluations in training.", one_of=PROTOCOLS, may_change=True
    )
    checkpoint_every_steps: int = field(
        1000, "Steps from one checkpoint to the next.", above=0, may_change=True, ceiling=MAX_COUNT
    )
    keep_checkpoints: int = field(
        2, "The last checkpoints that are kept.", above=0, may_change=True, ceiling=MAX_COUNT
    )
    log_every_steps: int = field(
        50, "Steps from one line to the next.", above=0, may_change=True, ceiling=MAX_COUNT
    )
    max_bad_steps: int = field(
        10,
        "A step whose loss or gradient is no finite number changes nothing; training ends, with "
        "its last checkpoint, when more than so many come in a row.",
        at_least=0,
        may_change=True,
        ceiling=MAX_COUNT,
    )
    deterministic: bool = field(
        False, "No operation whose result depends on the order of threads; slower on GPUs."
    )


@dataclasses.dataclass(slots=True)
class EvalConfig:
    """How evaluation makes its views."""

    scale: int = field(
        0,
        "Shorter side of the image in protocol full and of multi_view's full views, pixels; 0: "
        "data.shorter_side, which center and ten_view always take.",
        at_least=0,
        may_change=True,
        ceiling=MAX_SIDE,
    )
    scales: tuple[int, ...] = field(
        (),
        "Shorter sides of protocol multi_view, pixels; (): the paper's six, 224, 256, 300, 360, "
        "448 and 560, in proportion to the first of train.sizes, the side of a view.",
        may_change=True,
        ceiling=MAX_SIDE,
    )
    num_positions: int = field(
        9,
        "Where multi_view's views lie: 9, the middle, corners and mid-sides; 5, without mid-sides.",
        one_of=(5, 9),
        may_change=True,
    )
    has_full_views: bool = field(
        True, "Whether multi_view adds the full image and its mirror image.", may_change=True
    )
    batch_size: int = field(
        0, "0: data.batch_size.", at_least=0, may_change=True, ceiling=MAX_BATCH
    )
    canvas_step: int = field(
        32,
        "Sides of padded canvases are multiples of it: more pixels lost, fewer programs.",
        above=0,
        may_change=True,
        ceiling=MAX_SIDE,
    )
    num_examples: int = field(
        0,
        "Examples to score, evenly spread over the data; 0: all.",
        at_least=0,
        may_change=True,
        ceiling=MAX_COUNT,
    )


@dataclasses.dataclass(slots=True)
class RunConfig:
    """How a preset is run."""

    smoke: bool = field(
        False,
        "Two steps per epoch, one epoch per size, a batch of 8, 32 examples to evaluate on, "
        "whatever the other fields say: to see that a preset, its data and its checkpoints work, "
        "in minutes on two cores.",
    )
    max_step_seconds: float = field(
        1800.0,
        "Of several processes, one whose step takes longer ends, says where its threads stand, and "
        "the others end with it; 0: however long it takes.",
        at_least=0,
        may_change=True,
        ceiling=MAX_FLOAT,
    )


@dataclasses.dataclass(slots=True)
class Config:
    """Everything a run of training depends on."""

    seed: int = field(0, "Of everything that is drawn.", at_least=0, below=2**31)
    init_from: str = path_field(
        "A checkpoint to start from (fine-tuning); what fits is restored, the rest starts fresh."
    )
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def check_together(self, stored: "Config | None" = None) -> None:
        """Raises InputError for the first value that does not fit another; see `validate`."""
        data, sizes = self.data, self.train.sizes
        if not sizes:
            raise errors.InputError("config.train.sizes is empty")
        if stored is None or self.model.levels != stored.model.levels:
            check_bins(self.model.levels or (), "config.model.levels")
        name = "max(config.train.sizes)" if data.view == "warp" else "config.data.crop_size"
        needed = max(sizes) if data.view == "warp" else data.crop_size
        if needed > data.shorter_side:
            raise errors.InputError(
                f"{name}={needed} is larger than config.data.shorter_side={data.shorter_side}"
            )


def make_smoke(config: Config, num_devices: int = 1) -> None:
    """Cuts a config down as `run.smoke` says; the batch divides among the devices."""
    data, train = config.data, config.train
    is_alternating = train.size_schedule == "epoch"
    train.num_epochs = len(train.sizes) if is_alternating else 2
    train.steps_per_epoch = 2
    train.eval_every_epochs = train.num_epochs
    train.log_every_steps = 1
    train.checkpoint_every_steps = 2
    data.batch_size = -(-min(data.batch_size, 8) // num_devices) * num_devices
    data.num_workers = 0
    data.mean_examples = 32
    config.eval.num_examples = 32
    config.eval.batch_size = min(config.eval.batch_size, 8)
