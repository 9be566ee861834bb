"""Detects objects: one pass of the network over an image, then thousands of windows (section 4).

    train    trains a detector, stage by stage
    eval     detects the objects of a test split and scores them
    predict  draws and lists what is on images: detect predict IMAGE_OR_FOLDER ... --output=OUT
    score    scores detections that anyone wrote as VOC's files

Every stage leaves a file in the workdir; interrupted, the same command goes on. docs/detection.md
explains the fields and files.
"""

import os
import sys
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import cli

KIND = "DetectionConfig"
EXAMPLES = (
    "train --config=voc07_detection --workdir=DIR --config.checkpoint=NETWORK"
    " --config.data.path=VOCROOT",
    "eval --workdir=DIR --with=OTHER_DIR",
    "predict --workdir=DIR PHOTOGRAPHS --output=OUT --config.test.shown_score=0",
    "score --data=VOCROOT --split=test --detections=FOLDER --output=score.json",
)
# The flags of each command.
FLAGS = {
    "train": {"workdir", "dry_run"},
    "eval": {"workdir", "with"},
    "predict": {"workdir", "output"},
    "score": {"data", "split", "detections", "output", "min_iou"},
}

_command = ""


def start(argv: list[str]) -> NoReturn:
    """Runs `detect COMMAND`, argv[1]."""
    global _command
    if not cli.HELP & set(argv[1:2]):
        _command = cli.take_command(argv, tuple(FLAGS))
    cli.run(sys.modules[__name__], argv, arguments=_command == "predict")


def define_flags() -> None:
    flags.DEFINE_string("workdir", "", "train, eval, predict: where the detector is.")
    flags.DEFINE_bool("dry_run", False, "train: say what would be trained, and write no workdir.")
    flags.DEFINE_list("with", [], "eval: workdirs of detectors to combine it with.")
    flags.DEFINE_string("output", "", "predict: a folder; score: FILE.json.")
    flags.DEFINE_string("data", "", "score: VOC2007, or the folder it lies in.")
    flags.DEFINE_string("split", "test", "score: an image set.")
    flags.DEFINE_string(
        "detections",
        "",
        "score: folder of comp4_det_SPLIT_CLASS.txt, lines ID SCORE X1 Y1 X2 Y2.",
    )
    flags.DEFINE_float("min_iou", 0.5, "score: least overlap of a right detection.")


def define_config() -> None:
    if _command == "train":
        cli.define_config_file()
    elif _command in ("eval", "predict"):
        from spp_jax.detection import detector

        config_flags.DEFINE_config_dataclass("config", detector.read_config(_workdir()))


def main(arguments: list[str]) -> int:
    for name in sorted(set().union(*FLAGS.values()) - FLAGS[_command]):
        if flags.FLAGS[name].present:
            raise errors.InputError(f"detect {_command} has no --{name}")
    from spp_jax.runs import workers

    workers.use_one_thread()
    if _command == "score":
        return _score()
    if _command == "predict":
        return _predict(flags.FLAGS.config, arguments)
    if _command == "eval":
        return _evaluate(flags.FLAGS.config)
    return _train(cli.read_config(config_lib.DetectionConfig))


def _workdir() -> str:
    return cli.require("workdir", "it is the folder of the detector")


def _train(config: config_lib.DetectionConfig) -> int:
    from spp_jax.commands import console
    from spp_jax.detection import workdir as workdirs
    from spp_jax.detection.learning import stages
    from spp_jax.runs import signals

    workdir, progress = _workdir(), console.Console()
    workdirs.validate(config, workdir)
    if flags.FLAGS.dry_run:
        from spp_jax.commands import dry_run

        dry_run.detect(config, workdir, progress)
        return 0
    stop = signals.StopSignal(progress.say)
    stopped_by = stages.train(config, workdir, stop=stop, progress=progress)
    if stopped_by is not None:
        return 128 + stopped_by
    return _evaluate(config) if config.data.eval_split else 0


def _evaluate(config: config_lib.DetectionConfig) -> int:
    from spp_jax.commands import console, pictures, tables
    from spp_jax.data.sources import objects
    from spp_jax.detection.scoring import testing
    from spp_jax.runs import files

    workdir, progress = _workdir(), console.Console()
    others = [os.path.expanduser(d) for d in flags.FLAGS["with"].value or ()]
    objects.make_embedded(config.data, progress)
    tested = testing.score_split(workdir, config, others, progress=progress)
    for note in tested.notes:
        print(note)
    picture = os.path.join(tested.folder, f"curves_{tested.result['split']}.png")
    pictures.draw_curves(picture, tested.curves)
    output = testing.result_path(workdir, others)
    files.write_json(output, tested.result, indent=2)
    print(f"{tables.of_detections(tested.result)}\n-> {output}")
    return 0


def _predict(config: config_lib.DetectionConfig, arguments: list[str]) -> int:
    from spp_jax.commands import console, pictures
    from spp_jax.detection import prediction

    progress = console.Console()
    output = cli.require("output", "it is the folder that pictures and lists go to")
    names = prediction.list_images(arguments, progress)
    _check_output(output, names)
    refused: list[str] = []
    for number, image in enumerate(
        prediction.predict(_workdir(), config, names, refused, progress=progress)
    ):
        if not number:
            _make_folder(output)
        target = os.path.join(output, image.name)
        pictures.write_prediction(target, image)
        most = config.test.max_detections
        limit = f" (of a class at most config.test.max_detections={most})" * image.is_cut
        count = len(image.detections)
        print(f"{image.path}: {count}{limit} -> {target}.png, {target}.json", flush=True)
    for sentence in refused:
        print(f"refused: {sentence}", flush=True)
    return 0


def _make_folder(output: str) -> None:
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"--output={output} cannot be written: {e.strerror}") from e


def _check_output(output: str, names: dict[str, str]) -> None:
    """Raises InputError if a file to write is an image that was given, or a folder.

    Also if the output can be no folder: it is made only when there is something to write.
    """
    from spp_jax.runs import places

    reason = places.unwritable(output)
    if reason:
        raise errors.InputError(f"--output={reason}")  # which begins with the output
    inputs = {os.path.realpath(path) for path in names}
    for name in names.values():
        for target in (os.path.join(output, name + suffix) for suffix in (".png", ".json")):
            if os.path.realpath(target) in inputs:
                raise errors.InputError(f"--output={output}: {target} is an image that was given")
            if os.path.isdir(target):
                raise errors.InputError(f"--output={output}: {target} is a folder")


def _score() -> int:
    from spp_jax.commands import console, tables
    from spp_jax.detection.scoring import testing
    from spp_jax.runs import files

    data = cli.require("data", "it is VOC2007, or the folder that it lies in")
    split: Any = cli.require("split", "it is an image set")
    folder = cli.require("detections", "it is the folder of the detections files")
    output = cli.require("output", "it is the FILE.json to write")
    min_iou = flags.FLAGS.min_iou
    if not 0 < min_iou <= 1:
        raise errors.InputError(f"--min_iou must be above 0, at most 1, got {min_iou}")
    if not os.path.isdir(os.path.dirname(output) or ".") or os.path.isdir(output):
        raise errors.InputError(f"--output={output} is a folder, or lies in none")
    result = testing.score_files(
        data, folder, split=split, min_iou=min_iou, progress=console.Console()
    )
    try:
        files.write_json(output, result, indent=2)
    except OSError as e:
        raise errors.InputError(f"--output={output} cannot be written: {e.strerror}") from e
    print(f"{tables.of_detections(result)}\n-> {output}")
    return 0
