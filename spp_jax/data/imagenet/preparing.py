"""imagenet2012_256: ILSVRC 2012 with a shorter side of 256 pixels, from the official tars.

TFDS's own `imagenet2012` stores the originals, 3 times as many bytes, which take 5 times as long
to decode to 256 pixels (benchmarks/imagenet_decode.py). This one has the same splits, features,
classes and labels, and needs no TensorFlow. Each image is decoded (`images.decode`: upright RGB,
also of CMYK and of the PNG that is called JPEG), scaled so that its shorter side is SHORTER_SIDE,
never enlarged, and stored as JPEG of QUALITY. One that cannot be decoded is left out and named.

On the way everything is in NAME/VERSION.incomplete, which TFDS does not take for a data set: whole
shards, and in `progress` the settings, shards on their way and a JSON file for each whole one. The
directory is renamed when all is there.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import itertools
import multiprocessing
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore (compiled)
from tensorflow_datasets.core import constants

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.imagenet import tars
from spp_jax.runs import files, lock, signals, workers
from spp_jax.runs import progress as progress_lib

NAME = "imagenet2012_256"
VERSION = "1.0.0"
SHORTER_SIDE = 256  # pixels
# Three of four originals have whole chroma, and at equal size it loses less: on 100 of them 92
# without subsampling has 37.2 kB and a mean error of 1.95 levels, 95 with 4:2:0 38.4 kB and 2.08.
QUALITY = 92
CHROMA = "444"
# A worker holds a shard of encoded images, 0.2 GB. More and smaller shards would make it seek more:
# each takes a few images, side by side in the tar, of every class.
IMAGES_PER_SHARD = 5000

_SEED = 20120930  # of the order within shards


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to write: `items` of `tar`, as number `index` of `count`, under directory `work`."""

    work: str
    split: str
    index: int
    count: int
    tar: str
    items: tuple[tars.Item, ...]

    @property
    def path(self) -> str:
        # TFDS's scheme.
        name = f"{NAME}-{self.split}.array_record-{self.index:05}-of-{self.count:05}"
        return os.path.join(self.work, name)

    @property
    def summary_path(self) -> str:
        return os.path.join(self.work, "progress", f"{self.split}-{self.index:05}.json")


class _Link(NamedTuple):
    """What workers share with the main process."""

    # Without a lock, as is reading the other: a worker that is killed may hold one for ever.
    is_stopping: Any  # 1: leave the shards that are not finished
    num_done: Any  # images


_link: _Link  # of a worker


class _Work(NamedTuple):
    """What the main process works with."""

    link: _Link
    pool: concurrent.futures.Executor
    stop: signals.Stop
    progress: progress_lib.Progress

    def check_stop(self) -> None:
        """Raises KeyboardInterrupt if it is asked to stop."""
        if self.stop.signal is not None:
            raise KeyboardInterrupt


def final_dir(data_dir: str) -> str:
    """Returns where the prepared set is; it exists only when complete."""
    return os.path.join(data_dir or constants.DATA_DIR, NAME, VERSION)


def prepare(
    manual_dir: str,
    data_dir: str,
    num_workers: int,
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> list[str]:
    """Writes the set under `data_dir`, going on where an earlier call was interrupted.

    Nothing is done when it is there already. The result does not depend on `num_workers`, nor on
    interruptions.

    Args:
        manual_dir: holds the two official tars.
        data_dir: TFDS's; "" is its default.
        num_workers: processes, each 0.4 GB of memory.
        stop: asks to stop, or never; entered as a context. An exception in place of it could be
            lost in some clean-up that ignores exceptions.
        progress: is told how far it is.

    Returns:
        A sentence for each image that was left out because it cannot be decoded.

    Raises:
        InputError: a tar is missing, damaged or another one, shards of other settings are in the
            way, the disk is full, a worker died, or another process prepares it there.
        KeyboardInterrupt: `stop` asked for it; the workers have ended.
    """
    final = final_dir(data_dir)
    if os.path.isdir(final):
        return []
    paths = tars.find_tars(manual_dir)
    with lock.hold(os.path.dirname(final)) as is_locked:
        if os.path.isdir(final):  # another process has just finished
            return []
        work = final + ".incomplete"
        os.makedirs(os.path.join(work, "progress"), exist_ok=True)
        if is_locked:
            _remove_leftovers(work)
        _check_settings(work, paths)
        return _prepare(paths, final, work, num_workers, stop or signals.Stop(), progress)


def _remove_leftovers(work: str) -> None:
    """Removes the unfinished files of processes that were killed; no process may be at work."""
    for name in os.listdir(os.path.join(work, "progress")):
        # A shard on its way, or a JSON file: names of `_write_shard` and `files.replacing`.
        if re.search(r"(^|\.)[0-9a-f]{32}$", name):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(work, "progress", name))


def _prepare(
    paths: dict[str, str],
    final: str,
    work: str,
    num_workers: int,
    stop: signals.Stop,
    progress: progress_lib.Progress,
) -> list[str]:
    """Writes the set in `work`, and renames that to `final`; the rest as `prepare`."""
    context = multiprocessing.get_context("spawn")
    link = _Link(context.RawValue("b", 0), context.Value("q", 0))
    with (
        stop,
        workers.start(num_workers, _init_worker, link) as pool,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(setattr, link.is_stopping, "value", 1)
        work_on = _Work(link, pool, stop, progress)
        shards = [shard for split in paths for shard in _plan(split, paths[split], work, work_on)]
        done = _write(shards, work_on)
    refused = [sentence for summary in done for sentence in summary["refused"]]
    _write_metadata(work, shards, done, refused)
    try:
        os.rename(work, final)
    except OSError:
        # Without locks another process may have been first; its examples are the same.
        if not os.path.isdir(final):
            raise
    shutil.rmtree(os.path.join(final, "progress"), ignore_errors=True)
    return refused


def encode(data: bytes, name: str) -> bytes:
    """Returns the JPEG that is stored for an image file.

    Raises:
        ImageError: `data` cannot be decoded.
    """
    image = images.decode(data, name, shorter_side=SHORTER_SIDE)
    if min(image.shape[:2]) > SHORTER_SIDE:
        image = images.resize_shorter(image, SHORTER_SIDE)
    return simplejpeg.encode_jpeg(image, QUALITY, "RGB", CHROMA)


@functools.cache
def make_features() -> tfds.features.FeaturesDict:
    """Returns the features of TFDS's own imagenet2012."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=tars.load_wnids()),
            "file_name": tfds.features.Text(),
        }
    )


def _plan(split: str, tar: str, work: str, by: _Work) -> list[Shard]:
    """Reads the tables of a tar and divides its images over shards, classes evenly over each."""
    if split == "train":
        class_tars = tars.list_class_tars(tar)
        lists = by.pool.map(functools.partial(tars.list_class, tar), class_tars)
        classes = []
        with by.progress.bar(os.path.basename(tar), len(class_tars)) as advance:
            for items in lists:
                by.check_stop()
                classes.append(items)
                advance(1)
    else:
        classes = [tars.list_validation(tar)]
    # By the share of its class that is before each image: a cut anywhere leaves all classes even.
    ordered = sorted((i / len(c), item) for c in classes for i, item in enumerate(c))
    if not ordered:
        raise errors.InputError(f"{tar} holds no images")
    official = tars.NUM_OFFICIAL[split]
    if len(ordered) != official:
        by.progress.say(f"{tar} holds {len(ordered):,} images; the official one has {official:,}")
    items = [item for _, item in ordered]
    count = -(-len(items) // IMAGES_PER_SHARD)
    cuts = [len(items) * i // count for i in range(count + 1)]
    parts = [tuple(items[first:last]) for first, last in itertools.pairwise(cuts)]
    return [Shard(work, split, i, count, tar, part) for i, part in enumerate(parts)]


def _write(shards: Sequence[Shard], by: _Work) -> list[dict[str, Any]]:
    """Writes the shards that are not there yet; returns the summaries of all, in order."""
    summaries = [_read_summary(shard) for shard in shards]
    num_kept = sum(len(shard.items) for shard, s in zip(shards, summaries) if s)
    missing = {by.pool.submit(_write_shard, s): i for i, s in enumerate(shards) if not summaries[i]}
    pending, num_done = set(missing), 0
    with by.progress.bar("images", sum(len(s.items) for s in shards), done=num_kept) as advance:
        while pending:
            by.check_stop()
            done, pending = concurrent.futures.wait(
                pending, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                summaries[missing[future]] = future.result()
            num_now = by.link.num_done.get_obj().value
            advance(num_now - num_done)
            num_done = num_now
    return [summary for summary in summaries if summary is not None]


def _write_metadata(
    work: str, shards: Sequence[Shard], summaries: Sequence[dict[str, Any]], refused: list[str]
) -> None:
    """Writes the files that make `work` a set that TFDS can read without our code."""
    infos = []
    for split in tars.TARS:
        mine = [summary for shard, summary in zip(shards, summaries) if shard.split == split]
        lengths = [summary["num_examples"] for summary in mine]
        if not sum(lengths):
            raise errors.InputError(f"no image of split {split} can be decoded: {refused[0]}")
        template = tfds.core.ShardedFileTemplate(data_dir=tfds.core.Path(work), split=split)
        num_bytes = sum(summary["num_bytes"] for summary in mine)
        infos.append(tfds.core.SplitInfo(split, lengths, num_bytes, template))
    tfds.folder_dataset.write_metadata(
        data_dir=work,
        features=make_features(),
        split_infos=infos,
        version=VERSION,
        check_data=False,  # it would need TensorFlow
        description=(
            f"ILSVRC 2012, shorter side {SHORTER_SIDE} or less, JPEG quality {QUALITY} of chroma "
            f"{CHROMA}; made by spp_jax from the official tars."
        ),
        homepage="https://image-net.org/",
        supervised_keys=("image", "label"),
        metadata=tfds.core.MetadataDict(refused=refused),
    )


def _check_settings(work: str, paths: dict[str, str]) -> None:
    """Stores what decides the bytes of the shards; shards of other settings must not be mixed in.

    Raises:
        InputError: `work` was begun with other settings.
    """
    settings: dict[str, Any] = {
        "shorter_side": SHORTER_SIDE,
        "quality": QUALITY,
        "chroma": CHROMA,
        "images_per_shard": IMAGES_PER_SHARD,
        **{f"bytes of {os.path.basename(t)}": os.path.getsize(t) for t in paths.values()},
    }
    path = os.path.join(work, "progress", "settings.json")
    has_shards = any(name != "settings.json" for name in os.listdir(os.path.dirname(path)))
    if not has_shards:
        files.write_json(path, settings)
    try:
        old = files.read_object(path)
    except (OSError, ValueError) as e:
        raise errors.InputError(f"{path} is damaged ({e}); remove {work} to start anew") from e
    for key, value in settings.items():
        if old.get(key) != value:
            raise errors.InputError(
                f"{work} was begun with other settings ({key} was {old.get(key)}, now {value}); "
                "remove it to start anew"
            )


def _read_summary(shard: Shard) -> dict[str, Any] | None:
    """Returns what was stored about a shard, or None if it is not there or not whole."""
    try:
        summary = files.read_object(shard.summary_path)
        reader = array_record_module.ArrayRecordReader(shard.path)
        num_records = reader.num_records()  # of some damaged files 0, others raise
        reader.close()
    except (FileNotFoundError, ValueError, RuntimeError):  # ValueError: what a power cut left
        return None
    return summary if num_records == summary.get("num_examples", 0) > 0 else None


def _init_worker(link: _Link) -> None:
    global _link
    _link = link


def _write_shard(shard: Shard) -> dict[str, Any] | None:
    """Encodes the images of a shard and writes it; None if the main process says stop."""
    features = make_features()
    records, refused = [], []
    with files.open_regular(shard.tar) as f:
        for item in sorted(shard.items):  # as they follow in the tar
            if _link.is_stopping.value:
                return None
            f.seek(item.offset)
            data = f.read(item.size)
            try:
                example = {
                    "image": io.BytesIO(encode(data, item.name)),
                    "label": item.label,
                    "file_name": item.name,
                }
                records.append(features.serialize_example(example))
            except errors.ImageError as e:
                refused.append(str(e))
            with _link.num_done.get_lock():
                _link.num_done.value += 1
    # So that any range of the split holds all classes, as in TFDS's own.
    rng = np.random.default_rng([_SEED, list(tars.TARS).index(shard.split), shard.index])
    new = os.path.join(shard.work, "progress", uuid.uuid4().hex)
    try:
        writer = array_record_module.ArrayRecordWriter(new, "group_size:1")  # as TFDS's own
        for i in rng.permutation(len(records)):
            writer.write(records[i])
        writer.close()
    except RuntimeError as e:  # a full disk, say
        with contextlib.suppress(OSError):
            os.remove(new)
        raise errors.InputError(f"{shard.path} cannot be written: {e}") from e
    num_bytes = sum(map(len, records))
    summary = {"num_examples": len(records), "num_bytes": num_bytes, "refused": refused}
    # First, so that a shard that is there has one.
    files.write_json(shard.summary_path, summary)
    os.replace(new, shard.path)
    return summary
