"""Detects objects: one pass of the network over an image, then thousands of windows (section 4).

    python detect.py train --config=configs/voc07_detection.py --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=VOCROOT
    python detect.py eval --workdir=DIR [--with=OTHER_DIR] [--config.data.path=VOCROOT]
    python detect.py predict --workdir=DIR IMAGE_OR_FOLDER ... --output=OUT
    python detect.py score --data=VOCROOT --split=test --detections=DIR --output=FILE.json

Every stage is kept in the workdir; interrupted, the same command goes on. docs/detection.md
explains the fields and files.
"""

import os
import signal

from absl import flags
from ml_collections import config_flags

from spp_jax import cli, errors
from spp_jax.detection import detection_config, detector, mean_ap, prediction, stages, testing

COMMANDS = ("train", "eval", "predict", "score")

_WORKDIR = flags.DEFINE_string("workdir", "", "train, eval, predict: where the detector is.")
_WITH = flags.DEFINE_list("with", [], "eval: workdirs of detectors to combine it with.")
_OUTPUT = flags.DEFINE_string("output", "", "predict: a folder; score: FILE.json.")
_DATA = flags.DEFINE_string("data", "", "score: VOC2007, or the folder it lies in.")
_SPLIT = flags.DEFINE_string("split", "test", "score: an image set.")
_DETECTIONS = flags.DEFINE_string("detections", "", "score: folder of comp4_det_SPLIT_CLASS.txt.")
_MIN_IOU = flags.DEFINE_float("min_iou", 0.5, "score: least overlap of a right detection.")


def define_config() -> None:
    if COMMAND == "train":
        cli.define_config_file()
    elif COMMAND in ("eval", "predict"):
        config_flags.DEFINE_config_dataclass("config", detector.read_config(workdir()))


def workdir() -> str:
    if not _WORKDIR.value:
        raise errors.InputError("--workdir=DIR is missing")
    return os.path.expanduser(_WORKDIR.value)


def main() -> int:
    if IMAGES and COMMAND != "predict":
        raise errors.InputError(f"unexpected argument {IMAGES[0]!r}")
    if COMMAND == "score":
        paths = (os.path.expanduser(f.value) for f in (_DATA, _DETECTIONS, _OUTPUT))
        result = testing.score_files(*paths, split=_SPLIT.value, min_iou=_MIN_IOU.value)
        print(f"{mean_ap.table(result)}\n-> {_OUTPUT.value}")
        return 0
    if COMMAND == "train":
        config = cli.read_config(detection_config.DetectionConfig)
        stopped_by = stages.train(config, workdir())
        if stopped_by is not None:
            return 128 + stopped_by if stopped_by == signal.SIGTERM else 0
    else:
        config = flags.FLAGS.config
    if COMMAND == "predict":
        prediction.predict(workdir(), config, IMAGES, os.path.expanduser(_OUTPUT.value))
        return 0
    result = testing.evaluate(workdir(), config, [os.path.expanduser(d) for d in _WITH.value])
    print(f"{mean_ap.table(result)}\n-> {os.path.join(workdir(), testing.RESULT)}")
    return 0


if __name__ == "__main__":
    COMMAND, IMAGES = cli.take_command(COMMANDS), []
    cli.run(main, define_config, IMAGES)
