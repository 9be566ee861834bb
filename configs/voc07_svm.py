"""VOC 2007 classification as in section 3.2: features of a network as it is, and linear SVMs.

    python eval.py --protocol=svm --config=configs/voc07_svm.py --checkpoint=DIR
        --workdir=OUT --config.data.path=VOCROOT

VOCROOT is VOC2007, or a folder it lies in; trainval is trained on and test ranked, class by class.
DIR is any checkpoint: the rows of the table are made for its network. docs/results/svm.md has what
it took and gave.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.SvmConfig:
    config = config_lib.SvmConfig()
    config.data.name = "voc"
    config.data.split = "trainval"
    config.data.eval_split = "test"
    # The paper chose 392 on VOC's validation set.
    config.scales = ("crop", "224", "392", "warp")
    config.main_scale = "392"
    return config
