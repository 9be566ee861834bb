"""What the campaigns work on: small sets, and what unbroken runs on them have written.

All of it is made by the commands, once, in a folder of its own; a case copies what it breaks.
"""

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from tests import folders
from tests.detection import shapes
from tests.faults import processes

TRAIN_PRESET = """
from spp_jax import config as config_lib

def get_config():
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.shorter_side, config.data.crop_size, config.data.batch_size = 36, 32, 4
    config.train.sizes, config.train.num_epochs, config.train.learning_rate = (32, 24), 4, 0.005
    config.train.eval_every_epochs = 4
    config.train.log_every_steps = config.train.checkpoint_every_steps = 1
    return config
"""
DETECT_PRESET = """
from tests.detection import shapes

def get_config():
    config = shapes.make_config({voc!r}, {network!r})
    config.proposals.num_processes = 1
    config.finetune.enabled, config.finetune.num_steps = True, 6
    config.finetune.drop_steps, config.finetune.batch_size = (4,), 8
    config.finetune.checkpoint_every_steps = config.finetune.log_every_steps = 1
    config.features.levels, config.features.layer = (), "fc6"
    config.features.target_side = 0
    return config
"""


@dataclasses.dataclass(frozen=True)
class Stage:
    """The folder that holds it all."""

    root: pathlib.Path

    @property
    def scratch(self) -> pathlib.Path:
        """Where cases work."""
        return self.root / "cases"

    @property
    def pictures(self) -> pathlib.Path:
        """Two classes, 24 images to train on and 16 to score."""
        return self.root / "pictures"

    @property
    def trained(self) -> pathlib.Path:
        """The workdir of an unbroken run of training, 24 steps of two sizes."""
        return self.root / "trained"

    @property
    def features(self) -> pathlib.Path:
        """The file of an unbroken extraction of 40 images in 10 batches."""
        return self.root / "features.npy"

    @property
    def detector(self) -> pathlib.Path:
        """The workdir of a detector that was trained and tested without a break."""
        return self.root / "detector"

    def train(self, workdir: pathlib.Path, *flags: str) -> list[str]:
        """Returns the command that trains there."""
        preset, data = self.root / "train_preset.py", f"--config.data.path={self.pictures}"
        return ["train.py", f"--config={preset}", f"--workdir={workdir}", data, *flags]

    def extract(self, output: pathlib.Path, *flags: str) -> list[str]:
        """Returns the command that extracts to a file."""
        images = [f"--checkpoint={self.trained}", f"--images={self.pictures / 'train'}"]
        how = ["--layer=conv5", "--levels=2,1", "--scale=crop", "--size=32", "--batch_size=2"]
        return ["extract.py", *images, *how, f"--output={output}", *flags]

    def detect(self, workdir: pathlib.Path, *flags: str) -> list[str]:
        """Returns the command that trains and tests a detector there."""
        preset = self.root / "detect_preset.py"
        return ["detect.py", "train", f"--config={preset}", f"--workdir={workdir}", *flags]

    def make(self) -> None:
        """Makes whatever is not there yet."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        if (self.root / "ready.json").exists():
            return
        folders.make_folder(self.pictures, {"train": 12, "val": 8})
        voc = shapes.make_voc(self.root / "shapes", num_train=4, num_test=3)
        network = shapes.make_network(self.root / "network")
        (self.root / "train_preset.py").write_text(TRAIN_PRESET)
        (self.root / "detect_preset.py").write_text(DETECT_PRESET.format(voc=voc, network=network))
        log = self.root / "stage.log"
        processes.run(self.train(self.trained), log)
        processes.run(self.extract(self.features), log)
        processes.run(self.detect(self.detector), log)
        (self.root / "ready.json").write_text(json.dumps({"log": str(log)}))

    def copy(self, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        """Copies a file or folder; returns the copy."""
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target


def draw_seconds(rng: np.random.Generator, longest: float) -> float:
    """Returns a time to wait, in seconds, up to `longest`."""
    return float(rng.uniform(0, longest))
