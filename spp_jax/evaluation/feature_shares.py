"""Unfinished files of features that several processes make: each a share, which the first joins.

A share lies in OUTPUT.part/share-I.part, and share-I.json beside it has the numbers of its images.
Whoever goes on with an extraction joins the shares that it finds, of however many processes.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from spp_jax import cluster, errors
from spp_jax.evaluation import feature_files
from spp_jax.runs import files

_SHARE = re.compile(r"share-[0-9]+\.json")


class Unfinished:
    """The unfinished file of an output, for all processes.

    Attributes:
        done: the images whose features were there at the beginning.
    """

    def __init__(
        self,
        output: str,
        facts: dict[str, Any],
        description: feature_files.Description,
        num_features: int,
        whole: feature_files.Unfinished | None,
    ):
        """Takes what `feature_files.unfinished` does, and the file of the first process."""
        self._output, self._facts, self._description = output, facts, description
        self._num_features, self._whole = num_features, whole
        with cluster.together():
            if whole:
                self._join(whole)
        told = cluster.gather(sorted(whole.done()) if whole and cluster.count() > 1 else [])
        self.done = whole.done() if whole else set(told[0])

    def open_share(self, indices: Sequence[int]) -> feature_files.Unfinished:
        """Returns the file that gets the features of these images: the first process's is whole."""
        if self._whole:
            return self._whole
        name = os.path.join(self._output + ".part", f"share-{cluster.index()}")
        files.write_json(name + ".json", list(indices))
        os.makedirs(name + ".part", exist_ok=True)
        return self._open(name, indices)

    def finish(self, refused_heads: list[str], plan: dict[str, Any]) -> feature_files.Extracted:
        """Joins the shares and puts the finished file in its place; returns what it holds."""
        cluster.gather(None)
        finished: feature_files.Extracted | None = None
        with cluster.together():
            if self._whole:
                self._join(self._whole)
                finished = self._whole.finish(refused_heads, plan)
        if finished is None:
            finished = feature_files.read_finished(self._output, self._facts, self._description)
        if finished is None:
            raise errors.InputError(f"{self._output} is not there; is it on a disk that all see?")
        return finished

    def _join(self, whole: feature_files.Unfinished) -> None:
        for name in sorted(filter(_SHARE.fullmatch, os.listdir(whole.folder))):
            path = os.path.join(whole.folder, name)
            share = path.removesuffix(".json")
            if os.path.exists(os.path.join(share + ".part", "done.npy")):
                try:
                    indices = [int(index) for index in files.read_json(path)]
                    whole.take(self._open(share, indices))
                except (OSError, ValueError, TypeError, KeyError) as e:
                    raise errors.InputError(f"{share}.part is damaged; remove it") from e
            shutil.rmtree(share + ".part", ignore_errors=True)
            os.remove(path)

    def _open(self, share: str, indices: Sequence[int]) -> feature_files.Unfinished:
        examples = {index: self._description.examples[index] for index in indices}
        some = feature_files.Description(examples, self._description.class_names)
        return feature_files.Unfinished(share, self._facts, some, self._num_features)


@contextlib.contextmanager
def unfinished(
    output: str, facts: dict[str, Any], description: feature_files.Description, num_features: int
) -> Iterator[Unfinished]:
    """Opens the unfinished file of an output, for the processes of this command alone.

    Arguments and errors as `feature_files.unfinished`.
    """
    with contextlib.ExitStack() as stack:
        whole = None
        with cluster.together():
            if cluster.is_first():
                whole = stack.enter_context(
                    feature_files.unfinished(output, facts, description, num_features)
                )
        yield Unfinished(output, facts, description, num_features, whole)
