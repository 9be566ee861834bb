"""The config of the SVM benchmarks: linear SVMs on features (sections 3.2 and 3.3)."""

import dataclasses
from typing import Any

from spp_jax import errors
from spp_jax.config.features import Part, check_bins, read_scale
from spp_jax.config.fields import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_FLOAT,
    MAX_PROCESSES,
    MAX_SIDE,
    field,
    path_field,
)

# A row of the table: parts whose vectors, each of length 1, are concatenated.
Row = tuple[Part, ...]


def _as_texts(scales: Any) -> Any:
    try:
        return tuple(map(str, scales)) if isinstance(scales, tuple) else scales
    except ValueError:  # Python writes no number of more than 4,300 digits
        return scales


@dataclasses.dataclass(slots=True)
class SvmDataConfig:
    """What is classified."""

    name: str = field(
        "folder",
        "folder: class folders under data.path, or train/ and test/ of them, which are then the "
        "one split. voc: VOC's layout, where every image may show several classes.",
        one_of=("folder", "voc"),
    )
    path: str = path_field("The folder.")
    split: str = field("trainval", "The image set to train on, of voc.")
    eval_split: str = field("test", "The image set to test on, of voc.")
    num_train: int = field(
        30,
        "Images of each class to train on, of a folder without splits.",
        above=0,
        ceiling=MAX_COUNT,
    )
    max_test: int = field(
        50, "Most images of each class to test on, likewise.", above=0, ceiling=MAX_COUNT
    )
    num_splits: int = field(10, "How often they are drawn, likewise.", above=0, ceiling=10_000)
    num_workers: int = field(
        0,
        "0: threads of the main process; else loader processes.",
        at_least=0,
        ceiling=MAX_PROCESSES,
    )


@dataclasses.dataclass(slots=True)
class SvmConfig:
    """Everything the table of an SVM benchmark depends on but the network.

    The table has a line for each of `rows` and a column for each of `scales`.
    """

    seed: int = field(0, "Of splits and of liblinear.", at_least=0, ceiling=MAX_COUNT)
    data: SvmDataConfig = dataclasses.field(default_factory=SvmDataConfig)
    rows: tuple[Row, ...] = field(
        (), "Parts of each row; (): 1, 5, 14 and 50 bins of the last map, and what stands on it."
    )
    scales: tuple[str | int, ...] = field(
        ("crop", "224", "warp"),
        "Each crop, warp or the shorter side of the whole image, as extract.py's scale.",
        is_filled=True,
        normalize=_as_texts,
    )
    size: int = field(
        0, "The side of crop and warp, pixels; 0: the network's own.", at_least=0, ceiling=MAX_SIDE
    )
    main_scale: str = field(
        "224", "The result that stands for all is the last row's at this one of scales."
    )
    c: float = field(1.0, "The penalty C of an error.", above=0, ceiling=MAX_FLOAT)
    loss: str = field(
        "squared_hinge",
        "liblinear's own default did better than the hinge of LIBSVM, which the paper cites.",
        one_of=("hinge", "squared_hinge"),
    )
    batch_size: int = field(32, "Images of a batch.", above=0, ceiling=MAX_BATCH)
    num_programs: int = field(
        12, "Programs to compile at most, if memory allows.", above=0, ceiling=10_000
    )

    def check_together(self, stored: "SvmConfig | None" = None) -> None:
        """Raises InputError for the first value that does not fit another; see `validate`."""
        del stored  # no workdir goes on with one
        for part in (part for row in self.rows for part in row):
            check_bins(part.levels, f"config.rows: the pyramid of {part.layer}")
        for scale in self.scales:
            try:
                read_scale(str(scale))
            except ValueError as e:  # also Python's, as in `_as_texts`
                raise errors.InputError(f"config.scales: {e}") from e
        if len(set(self.scales)) < len(self.scales):
            raise errors.InputError(f"config.scales={self.scales} names a scale twice")
        if self.main_scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise errors.InputError(
                f"config.main_scale must be one of {known}, got {self.main_scale!r}"
            )
