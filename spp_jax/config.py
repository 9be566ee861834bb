"""The configuration of every command: its fields, their defaults, and the checks of combinations.

A preset in configs/ returns a `Config`; the command line overrides single fields, as in
`--config.train.learning_rate=0.02`. Checkpoints store it whole.
"""

import dataclasses

from spp_jax import errors, fields
from spp_jax.models import sppnet, topology


@dataclasses.dataclass(slots=True)
class ModelConfig:
    """The network; arguments of `spp_jax.make_model`."""

    name: str = "zf5"
    # None (on the command line also "()") is the network without SPP.
    levels: tuple[int, ...] | None = (6, 3, 2, 1)
    reduce: str = "max"
    # 0: as many as the training data has.
    num_classes: int = 0
    dtype: str = "float32"
    dropout: float = 0.5
    lrn: str | None = None


@dataclasses.dataclass(slots=True)
class DataConfig:
    """What is read, and how an image becomes a view.

    `name` is "folder" (class folders, or train/ and val/ or test/ of them, under `path`),
    "digit_scenes" (the embedded set), or any TFDS classification set; for TFDS `path` is its
    data_dir, "" TFDS's own default.
    """

    name: str = "folder"
    path: str = fields.path_field()
    split: str = "train"
    # "": validation, val, valid, dev or test, the first that the data has.
    eval_split: str = ""
    # Share held out by seed where a folder has no split of its own.
    held_out: float = 0.1
    # Examples of a step, over all devices and hosts.
    batch_size: int = 128
    # 0: threads of the main process, enough while decoding keeps up; else loader processes.
    num_workers: int = 0
    # MiB of decoded training images to keep in memory (each loader process its own).
    cache_mb: int = 0
    # "corners": the centre or a corner of the whole image (section 3.1), `crop_size` pixels of an
    # image whose shorter side is `shorter_side`, resized to the step's size. "warp": the whole
    # image, its aspect given up, but for a share of each side, up to `jitter`, cut off at random;
    # JPEGs are decoded no smaller than `shorter_side`.
    view: str = "corners"
    shorter_side: int = 256
    crop_size: int = 224
    jitter: float = 0.0
    # What is subtracted from images: the network's own "constant" (128 for the paper's networks),
    # or the mean of `mean_examples` training images (0: all), by "channel" or, as an "image", by
    # pixel; that is warped to other sizes (appendix A). It is computed once and kept in the
    # checkpoint. With init_from it is that of the network started from, whatever is said here.
    mean: str = "constant"
    mean_examples: int = 10_000
    # Training stops when a larger share of the examples turns out to be unreadable.
    max_refused: float = 0.01


@dataclasses.dataclass(slots=True)
class TrainConfig:
    """The recipe of section 3.1."""

    num_epochs: int = 70
    # 0: as many as the examples fill.
    steps_per_epoch: int = 0
    sizes: tuple[int, ...] = (224, 180)
    # "epoch": whole epochs alternate `sizes`, and the last epoch is at the first of them.
    # "random": a size an epoch, drawn from the whole numbers from the smallest to the largest.
    size_schedule: str = "epoch"
    learning_rate: float = 0.01
    # "plateau": times `lr_factor` whenever the training loss, averaged over one round of sizes,
    # has not improved for `patience` rounds, `num_drops` times at most. "step": times `lr_factor`
    # at each of `drop_epochs`.
    lr_schedule: str = "plateau"
    lr_factor: float = 0.1
    patience: int = 3
    num_drops: int = 2
    drop_epochs: tuple[int, ...] = ()
    momentum: float = 0.9
    # The learning rate of biases is that of weights times it.
    bias_lr_factor: float = 1.0
    weight_decay: float = 5e-4
    flip: bool = True
    # Deviation of AlexNet's colour noise, in units of the principal components' own; 0 is none.
    color_noise: float = 0.1
    eval_every_epochs: int = 1
    eval_protocol: str = "center"
    checkpoint_every_steps: int = 1000
    keep_checkpoints: int = 2
    log_every_steps: int = 50
    # No operation whose result depends on the order of threads; slower on GPUs.
    deterministic: bool = False


@dataclasses.dataclass(slots=True)
class EvalConfig:
    """How eval.py makes its views."""

    # Shorter side of the image in protocol full and of multi_view's full views; 0:
    # data.shorter_side, which center and ten_view always take.
    scale: int = 0
    # Shorter sides of protocol multi_view; (): the paper's six, 224, 256, 300, 360, 448 and 560,
    # in proportion to the first of train.sizes, the side of a view.
    scales: tuple[int, ...] = ()
    # Where multi_view's views lie: 9, the middle, corners and mid-sides; 5, without mid-sides.
    num_positions: int = 9
    # Whether multi_view adds the full image and its mirror.
    has_full_views: bool = True
    # 0: data.batch_size.
    batch_size: int = 0
    # Sides of padded canvases are multiples of it: more pixels lost, fewer programs.
    canvas_step: int = 32
    # Examples to score, evenly spread over the data; 0: all.
    num_examples: int = 0


@dataclasses.dataclass(slots=True)
class RunConfig:
    """How a preset is run."""

    # Two steps an epoch, one epoch a size, a batch of 8, 32 examples to evaluate on, whatever
    # the other fields say: to see that a preset, its data and its checkpoints work, in minutes on
    # two cores.
    smoke: bool = False


@dataclasses.dataclass(slots=True)
class Config:
    """Everything a run depends on."""

    seed: int = 0
    # A checkpoint to start from (fine-tuning); what fits is restored, the rest starts fresh.
    init_from: str = fields.path_field()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)


PROTOCOLS = ("center", "full", "warp", "ten_view", "multi_view")

# What a run may change between its start and its continuation without becoming another run.
_FREE_ON_RESUME = {
    "data.path",
    "data.num_workers",
    "data.cache_mb",
    "data.max_refused",
    "train.eval_every_epochs",
    "train.eval_protocol",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.log_every_steps",
    "eval.scale",
    "eval.scales",
    "eval.num_positions",
    "eval.has_full_views",
    "eval.batch_size",
    "eval.canvas_step",
    "eval.num_examples",
}


def validate(config: Config) -> None:
    """Puts `levels` and paths into their one form; raises InputError for the first wrong value."""
    model, data, train = config.model, config.data, config.train
    if model.levels in ((), (None,)):  # what the command line makes of "()" and "None"
        model.levels = None
    fields.check_types(config)
    fields.make_paths_whole(config)

    def check(ok: bool, sentence: str) -> None:
        if not ok:
            raise errors.InputError(sentence)

    try:
        net = make_model(config, num_classes=max(1, model.num_classes))
    except ValueError as e:
        raise errors.InputError(f"config.model: {e}") from e
    check(bool(train.sizes), "config.train.sizes is empty")
    for size in train.sizes:
        try:
            sppnet.check_images(net.backbone, (1, size, size, 3), has_levels=bool(model.levels))
        except ValueError as e:
            raise errors.InputError(f"config.train.sizes={train.sizes}: {e}") from e

    positive = "data.batch_size data.shorter_side data.crop_size train.num_epochs train.lr_factor"
    positive += " train.learning_rate train.patience train.log_every_steps train.keep_checkpoints"
    positive += " train.checkpoint_every_steps train.bias_lr_factor eval.canvas_step"
    not_negative = (
        "seed model.num_classes data.num_workers data.cache_mb train.weight_decay train.color_noise"
    )
    not_negative += " train.num_drops train.eval_every_epochs train.steps_per_epoch"
    not_negative += " data.mean_examples eval.scale eval.batch_size eval.num_examples"
    values = dict(fields.walk(config))
    fields.check_numbers(config, positive=positive, not_negative=not_negative)
    check(config.seed < 2**31, f"config.seed must be less than 2**31, got {config.seed}")
    drops = train.drop_epochs
    check(
        list(drops) == sorted(set(drops)) and min(drops, default=0) >= 0,
        f"config.train.drop_epochs must be increasing and at least 0, got {drops}",
    )
    shares = "data.held_out data.jitter data.max_refused train.momentum train.lr_factor"
    for path in shares.split():
        check(0 <= values[path] < 1, f"config.{path} must be from 0 to below 1: {values[path]}")
    for path, choices in {
        "data.view": ("corners", "warp"),
        "data.mean": ("constant", "channel", "image"),
        "train.size_schedule": ("epoch", "random"),
        "train.lr_schedule": ("plateau", "step"),
        "train.eval_protocol": PROTOCOLS,
        "eval.num_positions": (5, 9),
    }.items():
        names = ", ".join(map(str, choices))
        check(values[path] in choices, f"config.{path} must be one of {names}, got {values[path]}")
    name = "max(config.train.sizes)" if data.view == "warp" else "config.data.crop_size"
    needed = max(train.sizes) if data.view == "warp" else data.crop_size
    check(
        needed <= data.shorter_side,
        f"{name}={needed} is larger than config.data.shorter_side={data.shorter_side}",
    )
    check_protocol(config, train.eval_protocol)


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


def check_protocol(config: Config, protocol: str) -> None:
    """Raises InputError if the network or the sizes of the config cannot be scored that way."""
    if protocol not in PROTOCOLS:
        raise errors.InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol}")
    if protocol in ("full", "multi_view") and config.model.levels is None:
        raise errors.InputError(
            f"protocol {protocol} needs a network that takes any size, and this one has no SPP "
            "(config.model.levels=None); use protocol center, warp or ten_view"
        )
    side, size = config.data.shorter_side, config.train.sizes[0]
    if protocol in ("center", "ten_view") and side < size:
        raise errors.InputError(
            f"protocol {protocol} crops {size} pixels (the first of config.train.sizes), more than "
            f"config.data.shorter_side={side}"
        )
    if protocol == "multi_view" and min(scales(config)) < size:
        raise errors.InputError(
            f"protocol multi_view at shorter side {min(scales(config))} (config.eval.scales): its "
            f"views are {size} pixels (the first of config.train.sizes)"
        )
    is_full = protocol == "full" or (protocol == "multi_view" and config.eval.has_full_views)
    scale = config.eval.scale or side
    if is_full:
        smallest = topology.smallest_side(make_model(config, num_classes=1).backbone)
        if scale < smallest:
            raise errors.InputError(
                f"protocol {protocol} at shorter side {scale} (config.eval.scale or "
                f"config.data.shorter_side): {config.model.name} takes at least {smallest} pixels"
            )


# Section 3.1.5, for views of 224 pixels.
_PAPER_SCALES = (224, 256, 300, 360, 448, 560)


def scales(config: Config) -> tuple[int, ...]:
    """Returns the shorter sides of protocol multi_view."""
    size = config.train.sizes[0]
    return config.eval.scales or tuple(round(s * size / 224) for s in _PAPER_SCALES)


def make_model(config: Config, num_classes: int) -> sppnet.SPPNet:
    """Returns the network of a config, for as many classes as its data turned out to have."""
    return sppnet.make_model(**{**dataclasses.asdict(config.model), "num_classes": num_classes})


def difference(old: Config, new: Config) -> str | None:
    """Returns "config.seed was 0 and is 1" for the first field that makes it another run."""
    return fields.difference(old, new, _FREE_ON_RESUME)
