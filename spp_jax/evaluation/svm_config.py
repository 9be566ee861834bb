"""The configuration of `eval.py --protocol=svm`: fields, defaults and checks."""

import dataclasses
import math

from spp_jax import errors, fields
from spp_jax.evaluation import extraction, features

DATA = ("folder", "voc")

# A row of the table: parts whose vectors, each of length 1, are concatenated.
Row = tuple[features.Part, ...]


@dataclasses.dataclass(slots=True)
class SvmDataConfig:
    """What is classified.

    `name` is "folder", class folders under `path`, or train/ and test/ of them, which are then the
    one split; or "voc", VOC's layout, where every image may show several classes.
    """

    name: str = "folder"
    path: str = fields.path_field()
    # "voc": the image sets.
    split: str = "trainval"
    eval_split: str = "test"
    # "folder" without splits: images of a class to train on, most to test on, and how often they
    # are drawn.
    num_train: int = 30
    max_test: int = 50
    num_splits: int = 10
    # 0: threads of the main process; else loader processes.
    num_workers: int = 0


@dataclasses.dataclass(slots=True)
class SvmConfig:
    """Sections 3.2 and 3.3: linear SVMs, one class against the rest, on features of a network.

    The table has a line for each of `rows` and a column for each of `scales`.
    """

    seed: int = 0
    data: SvmDataConfig = dataclasses.field(default_factory=SvmDataConfig)
    # (): those of `svm_protocol.default_rows`, which any network has.
    rows: tuple[Row, ...] = ()
    # Each "crop", "warp" or the shorter side of the whole image, as extract.py's --scale.
    scales: tuple[str | int, ...] = ("crop", "224", "warp")
    # The side of crop and warp, pixels; 0: the network's own.
    size: int = 0
    # The result that stands for all: the last row at this one of `scales`.
    main_scale: str = "224"
    c: float = 1.0
    # liblinear's own default did better than the "hinge" of LIBSVM, which the paper cites.
    loss: str = "squared_hinge"
    batch_size: int = 32
    num_programs: int = 12


def validate(config: SvmConfig) -> None:
    """Makes strings of `scales`, and paths whole; raises InputError for the first wrong value."""
    fields.check_types(config)
    fields.make_paths_whole(config)
    config.scales = tuple(str(scale) for scale in config.scales)
    if not math.isfinite(config.c):
        raise errors.InputError(f"config.c must be a finite number, got {config.c}")
    fields.check_numbers(
        config,
        positive="data.num_train data.max_test data.num_splits c batch_size num_programs",
        not_negative="seed size data.num_workers",
    )
    if not config.scales:
        raise errors.InputError("config.scales is empty")
    values = dict(fields.walk(config))
    for path, choices in {
        "data.name": DATA,
        "loss": ("hinge", "squared_hinge"),
        "main_scale": config.scales,
    }.items():
        if values[path] not in choices:
            known = ", ".join(map(str, choices))
            raise errors.InputError(f"config.{path} must be one of {known}, got {values[path]!r}")
    for scale in config.scales:
        extraction.make_view(str(scale), config.size or 224)
    if len(set(config.scales)) < len(config.scales):
        raise errors.InputError(f"config.scales={config.scales} names a scale twice")
