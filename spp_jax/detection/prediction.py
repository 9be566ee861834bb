"""Detects objects in any images: an annotated PNG and a JSON for each."""

import collections
import os
from collections.abc import Sequence

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, folders, voc
from spp_jax.detection import dataset, detector, pictures
from spp_jax.detection.proposals import proposing
from spp_jax.detection.scoring import testing
from spp_jax.runs import files


class _Files:
    """Image files as an ObjectSource of nothing known."""

    split = "images"

    def __init__(self, paths: Sequence[str]):
        self.image_ids = tuple(paths)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> base.Example:
        return base.Example(images.read_file(self.name(index)), -1, self.name(index))

    def name(self, index: int) -> str:
        return self.image_ids[index]

    def annotation(self, index: int) -> voc.Annotation:
        del index
        return voc.Annotation(())


def predict(
    workdir: str,
    config: config_lib.DetectionConfig,
    paths: Sequence[str],
    output: str,
) -> list[str]:
    """Writes OUTPUT/NAME.png and OUTPUT/NAME.json for each image, and says what was found.

    The JSON holds image, height, width and detections, best first: class, score, and box x1, y1,
    x2, y2 in pixels, right and bottom exclusive. Those above `config.test.shown_score`.

    Args:
        workdir: of a finished detector.
        config: its own, with other ways to test.
        paths: of images and of folders, whose images are all taken.
        output: a folder, made if missing.

    Returns:
        A sentence for each image that cannot be read.

    Raises:
        InputError: no image, or none that can be read; two that would be written to one file.
    """
    config_lib.validate(config)
    if not output:
        raise errors.InputError("--output=OUT is missing")
    if not config.proposals.methods:
        raise errors.InputError("config.proposals.methods is empty: no way to find windows")
    names = _list_images(paths)
    _check_output(output, names)
    found = detector.load(workdir, config)
    source = _Files(list(names))
    data = dataset.read_sizes(dataset.Dataset(source, found.class_names, {}, (), (), (), {}))
    refused = dict(enumerate(data.refused, start=len(names)))
    if not data.sizes:
        raise errors.InputError(f"none of the images can be read: {data.refused[0]}")
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"--output={output} cannot be written: {e.strerror}") from e
    methods = config.proposals.eval_methods or config.proposals.methods
    proposer = proposing.Proposer("", proposing.make_settings(config.proposals, methods))
    for index, detections in testing.detect_all([found], data, proposer, config.test, refused):
        path = source.name(index)
        target = os.path.join(output, names[path])
        _write(target, path, data.sizes[index], detections, found.class_names, config)
        is_shown = detections.scores > config.test.shown_score
        most = np.bincount(detections.labels[is_shown]).max(initial=0)
        is_cut = most == config.test.max_detections
        limit = f" (of a class at most config.test.max_detections={most})" if is_cut else ""
        print(f"{path}: {is_shown.sum()}{limit} -> {target}.png, {target}.json", flush=True)
    for sentence in refused.values():
        print(f"refused: {sentence}", flush=True)
    if len(refused) == len(names):
        raise errors.InputError("none of the images can be read")
    return list(refused.values())


def _write(
    target: str,
    path: str,
    size: tuple[int, int],
    found: detector.ImageDetections,
    class_names: tuple[str, ...],
    config: config_lib.DetectionConfig,
) -> None:
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] > config.test.shown_score]
    detections = [
        {
            "class": class_names[found.labels[i]],
            "score": round(float(found.scores[i]), 4),
            "box": [round(float(v), 1) for v in found.boxes[i]],
        }
        for i in order
    ]
    facts = {"image": path, "height": size[0], "width": size[1], "detections": detections}
    files.write_json(target + ".json", facts, indent=2)
    texts = [f"{d['class']} {d['score']:.2f}" for d in detections]
    image = images.decode(images.read_file(path), path)
    shown = pictures.annotate(image, found.boxes[order], found.labels[order].tolist(), texts)
    pictures.write_png(target + ".png", shown)


def _list_images(paths: Sequence[str]) -> dict[str, str]:
    """Returns {path: name of its files in the output}."""
    if not paths:
        raise errors.InputError("no image is given")
    found: dict[str, str] = {}
    for given in map(os.path.expanduser, paths):
        if os.path.isdir(given):
            listed = folders.list_all(given)
            for note in listed.notes:
                print(note, flush=True)
            inner = {os.path.join(given, file): file for file in listed.files}
            named = {path: file.replace(os.sep, "_") for path, file in inner.items()}
        elif os.path.exists(given):
            named = {given: os.path.basename(given)}
        else:
            raise errors.InputError(f"{given}: no such file or folder")
        found |= {path: os.path.splitext(name)[0] for path, name in named.items()}
    counts = collections.Counter(found.values())
    # a.jpg and a.png of a folder become a.jpg.png and a.png.png.
    found = {p: os.path.basename(p) if counts[n] > 1 else n for p, n in found.items()}
    counts = collections.Counter(found.values())
    twice = next((p for p, name in found.items() if counts[name] > 1), None)
    if twice:
        raise errors.InputError(f"two images would be written as {found[twice]}.png, as {twice}")
    return found


def _check_output(output: str, names: dict[str, str]) -> None:
    """Raises InputError if what is to be written is an image that was given, or a folder."""
    inputs = {os.path.realpath(path) for path in names}
    for name in names.values():
        for target in (os.path.join(output, name + suffix) for suffix in (".png", ".json")):
            if os.path.realpath(target) in inputs:
                raise errors.InputError(f"--output={output}: {target} is an image that was given")
            if os.path.isdir(target):
                raise errors.InputError(f"--output={output}: {target} is a folder")
