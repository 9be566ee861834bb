"""A small VOC folder that a network with random weights can learn, and such a network."""

import pathlib

import cv2
import jax
import numpy as np

import spp_jax
from spp_jax import checkpoint
from spp_jax import config as config_lib
from tests.data import test_voc

CLASSES = ("disc", "square")


def make_voc(root: pathlib.Path, num_train: int = 10, num_test: int = 6) -> str:
    """Writes red discs and blue squares, one of each an image, and grey clutter."""
    rng = np.random.default_rng(0)
    sets = {
        "trainval": [f"a{i:02}" for i in range(num_train)],
        "test": [f"b{i:02}" for i in range(num_test)],
    }
    objects, images = {}, {}
    for image_id in (i for ids in sets.values() for i in ids):
        height, width = rng.integers(70, 90), rng.integers(100, 120)
        image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
        image[5:15, 5:60] = 160
        side = int(rng.integers(24, 34))
        x, y = int(rng.integers(2, 16)), int(rng.integers(18, 32))
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (0, 0, 255), -1)
        x2 = int(rng.integers(52, 64))
        cv2.rectangle(image, (x2, y), (x2 + side - 1, y + side - 1), (255, 0, 0), -1)
        images[image_id] = image
        # VOC's corners: counted from 1, both inclusive.
        disc = (x + 1, y + 1, x + side, y + side)
        square = (x2 + 1, y + 1, x2 + side, y + side)
        objects[image_id] = [
            test_voc.make_object("disc", disc),
            test_voc.make_object("square", square),
        ]
    sizes = {image_id: image.shape[1::-1] for image_id, image in images.items()}
    path = test_voc.make_voc(root, sets, objects, sizes)
    for image_id, image in images.items():
        assert cv2.imwrite(f"{path}/VOC2007/JPEGImages/{image_id}.jpg", image)
    return path


def make_network(path: pathlib.Path, seed: int = 0) -> str:
    """Writes a checkpoint of a network of random weights."""
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    model = spp_jax.make_model("digits", levels=(2, 1), num_classes=3)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(seed), images)
    meta = checkpoint.Meta(0, config, ("a", "b", "c"), 0, {})
    checkpoint.save_network(str(path), variables, meta)
    return str(path)


def make_config(voc: str, network: str) -> config_lib.DetectionConfig:
    """A detector of the shapes, of one program for convolutions."""
    config = config_lib.DetectionConfig()
    config.checkpoint, config.data.path = network, voc
    config.proposals.min_side, config.proposals.num_processes = 8, 2
    config.features.scales, config.features.num_canvases = (96,), 1
    config.features.levels, config.features.layer = (3, 1), "pool"
    config.features.target_side = 32
    config.svm.c = 0.1
    return config
