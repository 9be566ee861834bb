"""The windows of a split, from wherever its config says: found here, or read from files."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping

import numpy as np
from rich import progress

from spp_jax.data import images
from spp_jax.detection import boxes, dataset, detection_config, proposal_files, proposals

CACHE = "proposals"


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

    def __call__(self, data: bytes, name: str, size: tuple[int, int]) -> np.ndarray:
        """Returns windows (R, 4) inside the image of (height, width), each once.

        Raises:
            ImageError: the image cannot be read, or what was kept of it is gone.
        """
        if self.stored is not None:
            found = [self.stored[name]]
        elif self.folder:
            kept = [proposals.read_cached(self.folder, s, data) for s in self.settings]
            found = [windows for windows in kept if windows is not None]
            if len(found) < len(kept):
                raise images.ImageError(f"{name}: its windows are missing in {self.folder}")
        else:
            image = images.decode(data, name)
            found = [proposals.find(image, s) for s in self.settings]
        windows = boxes.clip(np.concatenate(found), *size)
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
    *,
    is_eval: bool,
) -> Proposer:
    """Finds the windows of every image of a split that are not kept yet.

    Raises:
        InputError: a file of windows is missing, damaged or lacks an image, or the cache cannot be
            written.
    """
    source = data.source
    stored = check(config, data)
    if stored is not None:
        return Proposer("", (), {source.name(i): stored[source.image_ids[i]] for i in data.sizes})
    folder = os.path.expanduser(config.cache) or os.path.join(workdir, CACHE)
    methods = (config.eval_methods or config.methods) if is_eval else config.methods
    proposer = Proposer(folder, make_settings(config, methods))
    columns = (*progress.Progress.get_default_columns(), progress.MofNCompleteColumn())
    indices = sorted(data.sizes)
    with progress.Progress(*columns) as bar:
        task = bar.add_task(f"proposals {source.split}", total=len(indices))
        for _ in proposals.find_all(
            source, indices, folder, proposer.settings, config.num_processes
        ):
            bar.advance(task)
    print(f"proposals {'+'.join(methods)} of {len(indices)} images -> {folder}", flush=True)
    return proposer


def check(
    config: detection_config.ProposalConfig, data: dataset.Dataset
) -> Mapping[str, np.ndarray] | None:
    """Returns the windows of `config.path` by image id, None where they are to be found here.

    Raises:
        InputError: the file is missing or damaged, or lacks an image.
    """
    if not config.path:
        return None
    found = proposal_files.read(os.path.expanduser(config.path))
    proposal_files.check_ids(found, [data.source.image_ids[i] for i in data.sizes], config.path)
    return found


def digest(config: detection_config.ProposalConfig) -> str:
    """Returns what stands for the windows of `config.path`, "" where there is none."""
    if not config.path:
        return ""
    found = hashlib.sha256()
    for name, windows in sorted(proposal_files.read(os.path.expanduser(config.path)).items()):
        found.update(name.encode() + np.ascontiguousarray(windows).tobytes())
    return found.hexdigest()
