"""The windows of a split, from wherever its config says: found here, or read from files."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping

import numpy as np

from spp_jax.data import images
from spp_jax.detection import bars, boxes, dataset, detection_config, proposal_files, proposals

CACHE = "proposals"


@dataclasses.dataclass(frozen=True)
class Stored:
    """Windows that others computed, `config.proposals.path`.

    Attributes:
        windows: {image id: (R, 4)}.
        path: of the file or folder.
        digest: stands for all of them.
    """

    windows: dict[str, np.ndarray]
    path: str
    digest: str

    def check(self, data: dataset.Dataset) -> None:
        """Raises InputError, naming the first, if an image of a split has no windows."""
        ids = [data.source.image_ids[i] for i in data.sizes]
        proposal_files.check_ids(self.windows, ids, self.path)


def read_stored(config: detection_config.ProposalConfig) -> Stored | None:
    """Reads the windows of `config.path`, None where they are to be found here.

    Raises:
        InputError: it is missing or damaged.
    """
    if not config.path:
        return None
    found = proposal_files.read(config.path)
    digest = hashlib.sha256()
    for name, windows in sorted(found.items()):
        digest.update(name.encode() + np.ascontiguousarray(windows).tobytes())
    return Stored(found, config.path, digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class Proposer:
    """Gives an image its windows; can be sent to loader processes.

    Attributes:
        folder: where found windows are kept; "": they are found when asked for, and not kept.
        settings: one a method.
        stored: {name of an image: windows} in place of both, or None.
    """

    folder: str
    settings: tuple[proposals.Settings, ...]
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
        if self.stored is not None:
            found = [self.stored[name]]
        elif self.folder:
            kept = [proposals.read_cached(self.folder, s, data) for s in self.settings]
            found = [windows for windows in kept if windows is not None]
            if len(found) < len(kept):
                raise images.ImageError(f"{name}: its windows are missing in {self.folder}")
        else:
            found = [proposals.find(image, s) for s in self.settings]
        windows = boxes.clip(np.concatenate(found), *image.shape[:2])
        windows = windows[boxes.area(windows) > 0]
        if len(found) > 1:
            windows = np.unique(windows, axis=0)
        return windows.astype(np.float32)


def make_settings(
    config: detection_config.ProposalConfig, methods: tuple[str, ...]
) -> tuple[proposals.Settings, ...]:
    """Returns the settings of each method."""
    return tuple(
        proposals.Settings(m, config.max_windows, config.min_side, config.max_image_side)
        for m in methods
    )


def prepare(
    config: detection_config.ProposalConfig,
    workdir: str,
    data: dataset.Dataset,
    stored: Stored | None,
    *,
    is_eval: bool,
) -> Proposer:
    """Finds the windows of every image of a split that are not kept yet.

    Args:
        config: where windows come from.
        workdir: of the detector.
        data: the split.
        stored: of `read_stored`.
        is_eval: whether it is tested on.

    Raises:
        InputError: `stored` lacks an image, or the cache cannot be written.
    """
    source = data.source
    if stored is not None:
        stored.check(data)
        names = {source.name(i): source.image_ids[i] for i in data.sizes}
        return Proposer("", (), {name: stored.windows[i] for name, i in names.items()})
    folder = config.cache or os.path.join(workdir, CACHE)
    methods = (config.eval_methods or config.methods) if is_eval else config.methods
    proposer = Proposer(folder, make_settings(config, methods))
    indices = sorted(data.sizes)
    found = proposals.find_all(source, indices, folder, proposer.settings, config.num_processes)
    for _ in bars.track(found, f"proposals {source.split}", len(indices)):
        pass  # what is found is kept; what cannot be read is named where it is asked for
    print(f"proposals {'+'.join(methods)} of {len(indices)} images -> {folder}", flush=True)
    return proposer
