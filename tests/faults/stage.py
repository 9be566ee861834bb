"""What the campaigns work on: small sets, and what unbroken runs on them have written.

All of it is made by the commands, once, in a folder of its own; a case copies what it breaks.
"""

import dataclasses
import pathlib
import shutil

import numpy as np

from spp_jax.data import images
from tests import folders
from tests.detection import shapes
from tests.interop import encoder
from tests.support import archives

TRAIN_PRESET = """
from spp_jax import config as config_lib

def get_config():
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.shorter_side, config.data.crop_size, config.data.batch_size = 36, 32, 4
    config.train.sizes, config.train.num_epochs, config.train.learning_rate = (32, 24), 2, 0.005
    config.train.eval_every_epochs = 2
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
    def voc(self) -> pathlib.Path:
        """VOC's folders: discs and squares, 4 images to train on and 3 to test."""
        return self.root / "shapes"

    @property
    def weights(self) -> pathlib.Path:
        """A caffemodel of SqueezeNet for two classes."""
        return self.root / "squeezenet.caffemodel"

    @property
    def class_names(self) -> pathlib.Path:
        """The names of these classes."""
        return self.root / "classes.txt"

    @property
    def tars(self) -> pathlib.Path:
        """ImageNet's two tars: 600 images of two classes to train on, 100 to validate."""
        return self.root / "tars"

    @property
    def trained(self) -> pathlib.Path:
        """The workdir of an unbroken run of training, 12 steps of two sizes."""
        return self.root / "unbroken" / "training"

    @property
    def features(self) -> pathlib.Path:
        """The file of an unbroken extraction of 40 images in 10 batches."""
        return self.root / "unbroken" / "extraction" / "x.npy"

    @property
    def detector(self) -> pathlib.Path:
        """The workdir of a detector that was trained and tested without a break."""
        return self.root / "unbroken" / "detection"

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

    def make_sets(self) -> None:
        """Makes the sets of images, networks and weights."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        folders.make_folder(self.pictures, {"train": 12, "val": 8})
        shapes.make_voc(self.root / "shapes", num_train=4, num_test=3)
        network = shapes.make_network(self.root / "network")
        (self.root / "train_preset.py").write_text(TRAIN_PRESET)
        (self.root / "detect_preset.py").write_text(
            DETECT_PRESET.format(voc=str(self.voc), network=network)
        )
        rng = np.random.default_rng(0)
        self.weights.write_bytes(encoder.net(encoder.squeezenet()))
        self.class_names.write_text("dark\nlight\n")
        picture = images.encode(rng.integers(0, 256, (300, 320, 3)).astype(np.uint8), ".jpg")
        wnids = ("n01440764", "n02105855")
        train = {
            f"{wnid}.tar": archives.tar({f"{wnid}_{i}.JPEG": picture for i in range(300)})
            for wnid in wnids
        }
        self.tars.mkdir()
        (self.tars / "ILSVRC2012_img_train.tar").write_bytes(archives.tar(train))
        validation = {f"ILSVRC2012_val_{i + 1:08}.JPEG": picture for i in range(100)}
        (self.tars / "ILSVRC2012_img_val.tar").write_bytes(archives.tar(validation))

    def copy(self, source: pathlib.Path, target: pathlib.Path) -> None:
        """Copies what a folder holds into another."""
        shutil.copytree(source, target, dirs_exist_ok=True)
