"""ZF-5 with the pyramid {6, 3, 2, 1} on a folder of photographs, alternating 224 and 180 pixels.

    python train.py --config=configs/folder_multisize.py --config.data.path=FOLDER --workdir=DIR

FOLDER holds class folders, or train/ and val/ (or test/) of them. The recipe is the paper's
(section 3.1) at half its batch. With 77 million parameters
at 1000 classes it is a GPU's work: two busy CPU cores made 18 images a second at 180 pixels and 6
at 224.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = config_lib.Config()
    config.model.name = "zf5"
    config.model.levels = (6, 3, 2, 1)
    config.data.name = "folder"
    config.data.batch_size = 64
    config.train.sizes = (224, 180)
    config.train.num_epochs = 70
    config.train.eval_protocol = "center"
    config.train.log_every_steps = 10
    return config
