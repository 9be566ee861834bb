"""The windows of a split, from wherever its config says: searched for, or read from files."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.detection import boxes, dataset
from spp_jax.detection.proposals import coverage, search, window_files
from spp_jax.runs import places
from spp_jax.runs import progress as progress_lib

CACHE = "proposals"


@dataclasses.dataclass(frozen=True)
class Stored:
    """Windows that others computed, `config.proposals.path`.

    Attributes:
        windows: {what the file calls an image: (R, 4)}; `of_split` has them by image id.
        path: of the file or folder.
        digest: stands for all of them.
    """

    windows: dict[str, np.ndarray]
    path: str
    digest: str

    def of_split(self, data: dataset.Dataset) -> dict[str, np.ndarray]:
        """Returns {image id: windows} of the images of a split that can be read.

        Raises:
            InputError: one has no windows, or has them twice; the first is named.
        """
        ids = [data.source.image_ids[i] for i in data.sizes]
        windows = window_files.by_image(self.windows, ids, self.path)
        window_files.check_ids(windows, ids, self.path)
        return windows

    def check(self, data: dataset.Dataset) -> None:
        """Raises InputError, naming the first, if an image of a split has no windows.

        Also where they must be of other images: most lie outside, or x and y are swapped; and where
        they are shares of the sides of an image.
        """
        largest = max((w[:, 2:].max(initial=0) for w in self.of_split(data).values()), default=0)
        total, beyond, outside, swapped = self._count_outside(data)
        said = ""
        # Up to 1, and 1 more of a .mat file, whose corners are inclusive.
        if total and largest <= 2:
            said = "all lie in the first 2 pixels, as shares (0..1) of an image's sides would"
        elif outside > 0.5 * total:
            said = f"{outside} lie outside their image"
        elif boxes.are_swapped(total, beyond, swapped):
            said = f"{beyond} reach beyond their image, but none would with x and y swapped"
        if said:
            raise errors.InputError(
                f"config.proposals.path={self.path}: of {total} windows of split "
                f"{data.source.split} {said}; rows are x1, y1, x2, y2 in pixels of the image"
            )

    def describe_outside(self, data: dataset.Dataset) -> str:
        """Returns a sentence about windows that reach beyond their image, or ""."""
        total, beyond, outside, _ = self._count_outside(data)
        if not beyond:
            return ""
        return (
            f"{beyond} of {total} windows ({beyond / total:.1%}) reach beyond their image and are "
            f"cut to it; {outside} of them lie outside and are left out"
        )

    def _count_outside(self, data: dataset.Dataset) -> tuple[int, int, int, int]:
        """Returns how many windows the images of a split have, and what does not fit these.

        How many reach beyond their image by more than a pixel, how many lie wholly outside, and how
        many would reach beyond with x and y swapped.
        """
        counts, windows_of = np.zeros(4, np.int64), self.of_split(data)
        for i, (height, width) in data.sizes.items():
            windows = windows_of[data.source.image_ids[i]]
            is_outside = boxes.area(boxes.clip(windows, height, width)) == 0
            sides = np.asarray([width, height])
            is_beyond = is_outside | boxes.reaches_beyond(windows, sides)
            is_swapped = boxes.reaches_beyond(windows[:, [1, 0, 3, 2]], sides)
            counts += [len(windows), *(int(x.sum()) for x in (is_beyond, is_outside, is_swapped))]
        total, beyond, outside, swapped = counts.tolist()
        return total, beyond, outside, swapped


def read_stored(config: config_lib.ProposalConfig) -> Stored | None:
    """Reads the windows of `config.path`, None where they are to be searched for.

    Raises:
        InputError: it is missing or damaged.
    """
    if not config.path:
        return None
    windows_of = window_files.read(config.path)
    digest = hashlib.sha256()
    for name, windows in sorted(windows_of.items()):
        digest.update(name.encode() + np.ascontiguousarray(windows).tobytes())
    return Stored(windows_of, config.path, digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class Proposer:
    """Gives an image its windows; can be sent to loader processes.

    Attributes:
        folder: of the windows that were searched for before; "": they are searched for when asked
            for.
        settings: one per method.
        stored: {name of an image: windows} in place of both, or None.
    """

    folder: str
    settings: tuple[search.Settings, ...]
    stored: Mapping[str, np.ndarray] | None = None

    def __call__(self, data: bytes, name: str, image: np.ndarray) -> np.ndarray:
        """Returns windows (R, 4) inside an image, each once.

        Args:
            data: the encoded image.
            name: what it is called.
            image: (H, W, 3) uint8 RGB, decoded.

        Raises:
            ImageError: what was kept of the image is gone.
        """
        if self.stored is not None or self.folder:
            return self.kept(data, name, (image.shape[0], image.shape[1]))
        windows = [search.find_windows(image, s) for s in self.settings]
        return _join(windows, (image.shape[0], image.shape[1]))

    def kept(self, data: bytes, name: str, size: tuple[int, int]) -> np.ndarray:
        """Returns the windows (R, 4) that are stored or kept of an image (height, width).

        Raises:
            ImageError: what was kept of the image is gone.
        """
        if self.stored is not None:
            return _join([self.stored[name]], size)
        kept = [search.read_cached(self.folder, s, data) for s in self.settings]
        parts = [windows for windows in kept if windows is not None]
        if len(parts) < len(kept):
            raise errors.ImageError(f"{name}: its windows are missing in {self.folder}")
        return _join(parts, size)


def _join(parts: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns the windows (R, 4) of several ways inside an image (height, width), each once."""
    windows = boxes.clip(np.concatenate(parts), *size)
    windows = windows[boxes.area(windows) > 0]
    if len(parts) > 1:
        windows = np.unique(windows, axis=0)
    return windows.astype(np.float32)


def make_settings(
    config: config_lib.ProposalConfig, methods: tuple[str, ...]
) -> tuple[search.Settings, ...]:
    """Returns the settings of each method."""
    return tuple(
        search.Settings(m, config.max_windows, config.min_side, config.max_image_side)
        for m in methods
    )


def methods_of(config: config_lib.ProposalConfig, *, testing: bool) -> tuple[str, ...]:
    """Returns the ways to search for windows, in training or in testing."""
    return (config.eval_methods or config.methods) if testing else config.methods


def check(
    config: config_lib.ProposalConfig,
    data: dataset.Dataset,
    stored: Stored | None,
    *,
    testing: bool,
) -> None:
    """Raises InputError if the images of a split cannot have windows, before they are searched for.

    That is where `stored` does not fit them, where all are smaller than the least window, or where
    the cache lacks windows and cannot be written.
    """
    methods = methods_of(config, testing=testing)
    if stored is not None:
        return stored.check(data)
    if data.sizes and max(map(min, data.sizes.values())) < config.min_side:
        raise errors.InputError(_no_windows(config, methods, data, None))
    if not config.cache:
        return None
    try:
        places.check(config.cache)
    except errors.InputError as e:
        settings = make_settings(config, methods)
        if not search.has_all(data.source, sorted(data.sizes), config.cache, settings):
            raise errors.InputError(
                f"config.proposals.cache={config.cache} lacks windows: {e}"
            ) from e
    return None


def provide(
    config: config_lib.ProposalConfig,
    workdir: str,
    data: dataset.Dataset,
    stored: Stored | None,
    *,
    testing: bool,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> Proposer:
    """Finds the windows of every image of a split that has none yet, and says how good all are.

    Args:
        config: where windows come from.
        workdir: of the detector; it gets what `coverage.Coverage.write` writes.
        data: the split.
        stored: of `read_stored`.
        testing: whether the split is tested on.
        progress: is told how far it is, and how good the windows are.

    Raises:
        InputError: `stored` lacks an image or is of others, no image has a window, or the cache
            cannot be written.
    """
    source, indices = data.source, sorted(data.sizes)
    methods = methods_of(config, testing=testing)
    if stored is not None:
        stored.check(data)
        windows = stored.of_split(data)
        kept = {source.name(i): windows[source.image_ids[i]] for i in indices}
        proposer = Proposer("", (), kept)
        done = ((i, "") for i in indices)
        origin = f"of {len(indices)} images from {stored.path}"
    else:
        folder = config.cache or os.path.join(workdir, CACHE)
        proposer = Proposer(folder, make_settings(config, methods))
        done = search.find_all(source, indices, folder, proposer.settings, config.num_processes)
        origin = f"{'+'.join(methods)} of {len(indices)} images -> {folder}"
    bar = progress.bar(f"proposals {source.split}", len(indices))
    with contextlib.closing(done), bar as advance:
        covered = coverage.measure(data, _kept(proposer, data, (i for i, _ in done), advance))
    if covered.num_images and not covered.num_windows:
        raise errors.InputError(_no_windows(config, methods, data, stored))
    progress.say(f"proposals {origin}: {covered.line()}")
    if stored is not None and (cut := stored.describe_outside(data)):
        progress.say(cut)
    try:
        covered.write(workdir, source.split)
    except OSError as e:
        raise errors.InputError(f"{e.filename or workdir} cannot be written: {e.strerror}") from e
    return proposer


def _kept(
    proposer: Proposer,
    data: dataset.Dataset,
    indices: Iterable[int],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the index and windows of each image that has them; tells how many images passed."""
    for i in indices:
        advance(1)
        try:
            encoded = b"" if proposer.stored is not None else data.source[i].data
            yield i, proposer.kept(encoded, data.source.name(i), data.sizes[i])
        except errors.ImageError:
            continue  # it is named where its pixels or windows are asked for


def _no_windows(
    config: config_lib.ProposalConfig,
    methods: tuple[str, ...],
    data: dataset.Dataset,
    stored: Stored | None,
) -> str:
    """Returns why no image of a split has a window."""
    where = f"in the {len(data.sizes)} images of split {data.source.split}"
    if stored is not None:
        return f"config.proposals.path={stored.path} has no window {where}"
    height, width = max(data.sizes.values(), key=min)
    return (
        f"{'+'.join(methods)} finds no window {where}: those with a side below "
        f"config.proposals.min_side={config.min_side} pixels are left out, and the largest image "
        f"is {width}x{height}; give a smaller one"
    )
