"""Detects objects: one pass of the network over an image, then thousands of windows (section 4).

    python detect.py train --config=configs/voc07_detection.py --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=VOCROOT
    python detect.py eval --workdir=DIR [--with=OTHER_DIR] [--config.data.path=VOCROOT]
    python detect.py predict --workdir=DIR IMAGE_OR_FOLDER ... --output=OUT
        [--config.test.shown_score=-0.5]: draws and lists what scores above it
    python detect.py score --data=VOCROOT --split=test --detections=DIR --output=FILE.json

Every stage is kept in the workdir; interrupted, the same command goes on. docs/detection.md
explains the fields and files.
"""

import os
import signal
import sys

from absl import flags
from ml_collections import config_flags

from spp_jax import cli, errors
from spp_jax import config as config_lib
from spp_jax.detection import detector, prediction
from spp_jax.detection.learning import stages
from spp_jax.detection.scoring import mean_ap, testing

_WORKDIR = flags.DEFINE_string("workdir", "", "train, eval, predict: where the detector is.")
_WITH = flags.DEFINE_list("with", [], "eval: workdirs of detectors to combine it with.")
_OUTPUT = flags.DEFINE_string("output", "", "predict: a folder; score: FILE.json.")
_DATA = flags.DEFINE_string("data", "", "score: VOC2007, or the folder it lies in.")
_SPLIT = flags.DEFINE_string("split", "test", "score: an image set.")
_DETECTIONS = flags.DEFINE_string(
    "detections", "", "score: folder of comp4_det_SPLIT_CLASS.txt, lines ID SCORE X1 Y1 X2 Y2."
)
_MIN_IOU = flags.DEFINE_float("min_iou", 0.5, "score: least overlap of a right detection.")


# The flags of each command, beside those of all.
FLAGS = {
    "train": {"workdir"},
    "eval": {"workdir", "with"},
    "predict": {"workdir", "output"},
    "score": {"data", "split", "detections", "output", "min_iou"},
}


def define_config() -> None:
    if COMMAND == "train":
        cli.define_config_file()
    elif COMMAND in ("eval", "predict"):
        config_flags.DEFINE_config_dataclass("config", detector.read_config(workdir()))


def workdir() -> str:
    if not _WORKDIR.value:
        raise errors.InputError("--workdir=DIR is missing")
    return os.path.expanduser(_WORKDIR.value)


def check_flags() -> None:
    for name in set().union(*FLAGS.values()) - FLAGS[COMMAND]:
        if flags.FLAGS[name].present:
            raise errors.InputError(f"detect.py {COMMAND} has no --{name}")


def main() -> int:
    check_flags()
    # As Ctrl-C: what is under way is closed, worker processes among it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if IMAGES and COMMAND != "predict":
        raise errors.InputError(f"unexpected argument {IMAGES[0]!r}")
    if COMMAND == "score":
        paths = (os.path.expanduser(f.value) for f in (_DATA, _DETECTIONS, _OUTPUT))
        result = testing.score_files(*paths, split=_SPLIT.value, min_iou=_MIN_IOU.value)
        print(f"{mean_ap.table(result)}\n-> {_OUTPUT.value}")
        return 0
    if COMMAND == "train":
        config = cli.read_config(config_lib.DetectionConfig)
        stopped_by = stages.train(config, workdir())
        if stopped_by is not None:
            return 128 + stopped_by
        if not config.data.eval_split:
            return 0
    else:
        config = flags.FLAGS.config
    if COMMAND == "predict":
        prediction.predict(workdir(), config, IMAGES, os.path.expanduser(_OUTPUT.value))
        return 0
    result = testing.evaluate(workdir(), config, [os.path.expanduser(d) for d in _WITH.value])
    print(f"{mean_ap.table(result)}\n-> {testing.result_path(workdir(), _WITH.value)}")
    return 0


if __name__ == "__main__":
    COMMAND, IMAGES = cli.take_command(tuple(FLAGS)), []
    cli.run(main, define_config, IMAGES)
