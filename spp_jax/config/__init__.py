"""Configs: pure data. Presets return one; `validate` checks it, whichever it is."""

from spp_jax.config.detection import (
    METHODS,
    DetectionConfig,
    DetectionDataConfig,
    FeatureConfig,
    FinetuneConfig,
    MiningConfig,
    ProposalConfig,
    RegressionConfig,
    TestConfig,
)
from spp_jax.config.features import Part, check_bins, read_scale
from spp_jax.config.fields import difference, entries, from_dict, validate, whole_path
from spp_jax.config.run import (
    PROTOCOLS,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    make_smoke,
)
from spp_jax.config.svm import Row, SvmConfig, SvmDataConfig

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "Config",
    "DataConfig",
    "DetectionConfig",
    "DetectionDataConfig",
    "EvalConfig",
    "FeatureConfig",
    "FinetuneConfig",
    "MiningConfig",
    "ModelConfig",
    "Part",
    "ProposalConfig",
    "RegressionConfig",
    "Row",
    "RunConfig",
    "SvmConfig",
    "SvmDataConfig",
    "TestConfig",
    "TrainConfig",
    "check_bins",
    "difference",
    "entries",
    "from_dict",
    "make_smoke",
    "read_scale",
    "validate",
    "whole_path",
]
