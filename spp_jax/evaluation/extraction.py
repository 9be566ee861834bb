"""Extracts the features of a whole source to a file; interrupted, the same command goes on.

While it is being made, OUTPUT.part holds the features so far and `state.json`: what they are of,
how many batches are done, and which images were refused. A finished file replaces it in one step.
"""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import rich.progress

from spp_jax import errors, files
from spp_jax.data import base, images, pipeline
from spp_jax.evaluation import canvases, features, views
from spp_jax.models import sppnet

# Seconds of work that a killed process may lose.
_SAVE_EVERY = 10.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What is extracted, and how it is computed.

    Attributes:
        parts: layers and their pyramids; their vectors are concatenated.
        view: how an image is shown: "full", "center" or "warp" of `views.Protocol`.
        is_normalized: divide the vector of each part by its Euclidean norm.
        dtype: of the file, "float32" or "float16".
        batch_size: images of view.size x view.size pixels in a batch, or as many pixels.
        num_programs: most programs to compile.
        num_workers: 0, threads of this process, or loader processes.
    """

    parts: tuple[features.Part, ...]
    view: views.Protocol
    is_normalized: bool = False
    dtype: str = "float32"
    batch_size: int = 32
    num_programs: int = 8
    num_workers: int = 0


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What a finished file holds, its rows in the source's order.

    Attributes:
        features: (N, D), mapped from the file where that is a .npy.
        indices: of the rows in the source; refused images have none.
        refused: a sentence for each image that could not be read.
        metadata: what is stored with them: checkpoint, layers, programs, padded_share ...
    """

    features: np.ndarray
    indices: np.ndarray
    refused: tuple[str, ...]
    metadata: dict[str, Any]


def make_view(scale: str, size: int) -> views.Protocol:
    """Returns the view of a `--scale`: "crop", "warp" (of `size` pixels) or a shorter side.

    "crop" is the middle size x size pixels at shorter side `size` (section 3.2's "crop").

    Raises:
        InputError: none of these.
    """
    if scale in ("crop", "warp"):
        return views.Protocol("center" if scale == "crop" else "warp", size, size)
    if not scale.isdecimal() or int(scale) < 1:
        raise errors.InputError(f"scale {scale!r} is neither crop, warp nor a number of pixels")
    return views.Protocol("full", int(scale), int(scale))


def extract_to(
    output: str,
    model: sppnet.SPPNet,
    variables: dict,
    source: base.Source,
    request: Request,
    *,
    has_progress_bar: bool = False,
) -> Extracted:
    """Extracts the features of every image of a source to a .npz or .npy file.

    A .npz holds `features` (N, D), `paths`, `labels` (-1: none), `class_names`, `indices` and
    `metadata`, JSON. A .npy holds the features alone, to be mapped into memory; OUTPUT.json beside
    it holds the rest. A finished file of the same request is returned as it is.

    Args:
        output: FILE.npz or FILE.npy.
        model, variables: the network.
        source: the images.
        request: what to extract.
        has_progress_bar: whether to show one, and lines about programs and refusals.

    Raises:
        InputError: wrong layers, a view the network does not take, an output that is there and of
            something else, or not one image that can be read.
    """
    check_output(output)
    parts = features.check_parts(model, request.parts)
    check_view(model, request.view)
    sizes, refused = _read_sizes(source, request, has_progress_bar)
    if not sizes:
        raise errors.InputError(f"none of {len(source)} images can be read: {refused[0]}")
    batches = canvases.plan(
        sizes, request.num_programs, request.batch_size * request.view.size**2, jax.device_count()
    )
    facts: dict[str, Any] = {
        "backbone": model.backbone.name,
        "layers": [dataclasses.asdict(part) for part in parts],
        "view": request.view.name,
        "scale": request.view.scale,
        "is_normalized": request.is_normalized,
        "dtype": request.dtype,
        "num_programs": len({(b.canvas, b.num_rows) for b in batches}),
        "padded_share": canvases.padded_share(batches, sizes),
        "parameters_crc32": _checksum(variables),
        "images_sha256": _digest(source, sizes),
    }
    facts = json.loads(json.dumps(facts))  # as it will be read
    done = _read_finished(output, facts)
    if done:
        return done
    part = _Part(output, facts, sizes, (len(sizes), features.num_features(model, parts)), request)
    if has_progress_bar:
        print(
            f"{len(sizes)} images, {len(set(sizes.values()))} sizes as shown: "
            f"{facts['num_programs']} programs, {100 * facts['padded_share']:.1f} % of the pixels "
            "are padding" + (f"; going on after {part.num_done} images" if part.num_done else ""),
            flush=True,
        )
    todo = batches[part.num_batches :]
    order = [index for batch in todo for index in batch.indices]
    with (
        part,
        rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
            disable=not has_progress_bar,
        ) as bar,
    ):
        task = bar.add_task("features", total=len(sizes), completed=part.num_done)
        examples = pipeline.eval_examples(source, request.view, request.num_workers, order)
        shown = part.images_of(zip(order, examples))
        has_extents = request.view.name == "full"
        for batch, values in features.compute(
            model, variables, parts, todo, shown, request.is_normalized, has_extents
        ):
            part.write(batch.indices, values)
            bar.advance(task, len(batch.indices))
    return part.finish(source, refused)


def check_output(output: str) -> None:
    """Raises InputError unless a .npz or .npy can be written there."""
    if os.path.splitext(output)[1] not in (".npz", ".npy"):
        raise errors.InputError(f"output {output!r} must end in .npz or .npy")
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise errors.InputError(f"output {output}: folder {folder} is missing or not writable")


def check_view(model: sppnet.SPPNet, view: views.Protocol) -> None:
    """Raises InputError if the network does not take the images of a view."""
    if view.name == "full" and model.levels is None:
        raise errors.InputError(
            f"shorter side {view.scale} needs a network that takes any size, and this one has no "
            "SPP; show it crop or warp"
        )
    features.check_size(model, view.size, view.size, f"scale {view.scale}")


def _read_sizes(
    source: base.Source, request: Request, has_progress_bar: bool
) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """Returns {index: size as shown} of the images whose header can be read, and refusals."""
    sizes: dict[int, tuple[int, int]] = {}
    refused = []
    heads = pipeline.eval_examples(source, _shown_size, request.num_workers)
    for index, head in enumerate(
        rich.progress.track(heads, "sizes", len(source), disable=not has_progress_bar)
    ):
        if head.refused:
            refused.append(head.refused)
        else:
            sizes[index] = request.view.shown_size(*head.views)
    return sizes, refused


def _shown_size(data: bytes, name: str) -> tuple[int, int]:
    return images.read_size(io.BytesIO(data), name)


def _checksum(variables: dict) -> int:
    found = 0
    for leaf in jax.tree.leaves(variables):
        found = zlib.crc32(np.ascontiguousarray(leaf), found)
    return found


def _digest(source: base.Source, sizes: dict[int, tuple[int, int]]) -> str:
    found = hashlib.sha256()
    for index, size in sizes.items():
        found.update(f"{source.name(index)}\0{size}\0".encode())
    return found.hexdigest()


class _Part:
    """The unfinished file; as a context it keeps what was done, whatever ends the work."""

    def __init__(
        self,
        output: str,
        facts: dict[str, Any],
        sizes: dict[int, tuple[int, int]],
        shape: tuple[int, int],
        request: Request,
    ):
        self._output, self._facts, self._folder = output, facts, output + ".part"
        self._row = {index: row for row, index in enumerate(sizes)}
        self._refused: dict[int, str] = {}
        self.num_batches = self.num_done = 0
        path, labels = (os.path.join(self._folder, f"{n}.npy") for n in ("features", "labels"))
        state = self._read_state()
        if state:
            self.num_batches, self.num_done = state["num_batches"], state["num_done"]
            self._refused = {int(k): v for k, v in state["refused"].items()}
            self._array = np.lib.format.open_memmap(path, mode="r+")
            self._labels = np.lib.format.open_memmap(labels, mode="r+")
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.makedirs(self._folder)
            self._array = _new_memmap(path, request.dtype, shape)
            self._labels = _new_memmap(labels, "int32", shape[:1])
            self._save()
        self._last_saved = time.monotonic()

    def _read_state(self) -> dict[str, Any] | None:
        path = os.path.join(self._folder, "state.json")
        if not os.path.exists(path):
            return None
        state = files.read_json(path)
        if state["facts"] != self._facts:
            raise errors.InputError(
                f"{self._folder} holds the beginning of something else "
                f"({_difference(state['facts'], self._facts)}); remove it or change the output"
            )
        return state

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._save()
        if kind:
            print(f"{self.num_done} images are kept in {self._folder}; the same command goes on")

    def images_of(
        self, examples: Iterator[tuple[int, pipeline.EvalExample]]
    ) -> Iterator[np.ndarray | None]:
        """Yields the image of each example, None for a refused one, which is noted."""
        for index, example in examples:
            if example.refused:
                self._refused[index] = example.refused
            else:
                self._labels[self._row[index]] = example.label
            yield None if example.refused else example.views[0]

    def write(self, indices: Sequence[int], values: np.ndarray) -> None:
        """Stores the features of the next batch."""
        with np.errstate(over="ignore"):
            stored = values.astype(self._array.dtype)
        if self._array.dtype == np.float16 and not np.all(np.isfinite(stored)):
            raise errors.InputError(
                f"features up to {np.max(np.abs(values)):g} do not fit float16; use float32, or "
                "normalise them"
            )
        self._array[[self._row[i] for i in indices]] = stored
        self.num_batches += 1
        self.num_done += len(indices)
        if time.monotonic() - self._last_saved > _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        self._array.flush()
        self._labels.flush()
        # Images are decoded ahead of the batches that are done: later ones are refused again.
        files.write_json(
            os.path.join(self._folder, "state.json"),
            {
                "facts": self._facts,
                "num_batches": self.num_batches,
                "num_done": self.num_done,
                "refused": self._refused,
            },
        )
        self._last_saved = time.monotonic()

    def finish(self, source: base.Source, refused_heads: list[str]) -> Extracted:
        """Puts the finished file in its place and returns what it holds."""
        kept = [index for index in self._row if index not in self._refused]
        refused = [*refused_heads, *(self._refused[i] for i in sorted(self._refused))]
        if not kept:
            raise errors.InputError(f"none of {len(source)} images can be read: {refused[0]}")
        examples = {
            "paths": [source.name(i) for i in kept],
            "labels": [int(self._labels[self._row[i]]) for i in kept],
            "class_names": list(source.class_names),
            "indices": kept,
        }
        metadata = {**self._facts, "refused": refused}
        whole = self._array
        if self._refused:
            # Mapped, so that a set larger than memory can lose a row as well.
            path = os.path.join(self._folder, "kept.npy")
            whole = _new_memmap(path, whole.dtype, (len(kept), whole.shape[1]))
            for row, index in enumerate(kept):
                whole[row] = self._array[self._row[index]]
            whole.flush()
        if self._output.endswith(".npz"):
            path = os.path.join(self._folder, "whole.npz")
            with open(path, "wb") as f:
                np.savez(f, features=whole, metadata=json.dumps(metadata), **examples)
        else:
            path = str(whole.filename)
            files.write_json(self._output + ".json", {**examples, "metadata": metadata})
        os.replace(path, self._output)
        shutil.rmtree(self._folder)
        return _read(self._output)


def _read_finished(output: str, facts: dict[str, Any]) -> Extracted | None:
    """Returns the output if it is there and of this; raises InputError if it is something else."""
    if not os.path.exists(output):
        return None
    try:
        found = _read(output)
        stored = {k: v for k, v in found.metadata.items() if k != "refused"}
    except (OSError, ValueError, KeyError) as e:
        raise errors.InputError(f"{output} is there and was not written by extract_to") from e
    if stored != facts:
        raise errors.InputError(
            f"{output} is there and holds something else ({_difference(stored, facts)}); remove "
            "it or change the output"
        )
    return found


def _read(output: str) -> Extracted:
    if output.endswith(".npz"):
        with np.load(output) as archive:
            array, indices = archive["features"], archive["indices"]
            metadata = json.loads(str(archive["metadata"]))
    else:
        array = np.load(output, mmap_mode="r")
        described = files.read_json(output + ".json")
        indices, metadata = np.asarray(described["indices"]), described["metadata"]
    return Extracted(array, indices, tuple(metadata["refused"]), metadata)


def _new_memmap(path: str, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    name = next((k for k in new if old.get(k) != new[k]), "version")
    return f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
