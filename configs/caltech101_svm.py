"""Caltech-101 as in section 3.3: features of a network as it is, and linear SVMs.

    python eval.py --protocol=svm --config=configs/caltech101_svm.py --checkpoint=DIR
        --workdir=OUT --config.data.path=FOLDER

FOLDER holds class folders, of which 30 images are drawn to train on and up to 50 of the others to
test on, ten times; or train/ and test/ of them, which are taken as they are. DIR is any checkpoint:
the rows of the table are made for its network. docs/results/svm.md has what it took and gave.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.SvmConfig:
    config = config_lib.SvmConfig()
    config.data.name = "folder"
    config.data.num_train = 30
    config.data.max_test = 50
    config.data.num_splits = 10
    config.scales = ("crop", "224", "warp")
    config.main_scale = "224"
    return config
