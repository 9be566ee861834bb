"""Work on the examples of a source that several processes share out, each example once."""

from collections.abc import Mapping, Sequence

from spp_jax import cluster
from spp_jax.data import images
from spp_jax.data.loading import reading
from spp_jax.data.sources import base
from spp_jax.runs import progress as progress_lib


def read_heads(
    source: base.Source,
    num_workers: int,
    indices: Sequence[int],
    *,
    limits: images.Limits = images.LIMITS,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> tuple[dict[int, reading.Head], dict[int, str]]:
    """Returns what `reading.read_heads` does; every process reads its share, and returns all."""
    heads, refused = reading.read_heads(
        source, num_workers, cluster.share(indices), limits=limits, progress=progress
    )
    told = [[i, *head.size, head.crc32, head.label] for i, head in heads.items()]
    everyones = {
        i: reading.Head((height, width), crc32, label)
        for part in cluster.gather(told)
        for i, height, width, crc32, label in part
    }
    return {i: everyones[i] for i in indices if i in everyones}, gather_refused(refused)


def gather_refused(refused: Mapping[int, str]) -> dict[int, str]:
    """Returns the sentences of all processes by the index of their example, in its order."""
    parts = cluster.gather(list(refused.items()))
    return dict(sorted((index, sentence) for part in parts for index, sentence in part))
