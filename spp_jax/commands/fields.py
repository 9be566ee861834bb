"""Lists the fields of a preset's config: path, type, default, the preset's value, and what it is.

fields PRESET [PREFIX]; a PREFIX, as "train.", lists the fields whose path begins so.
"""

import importlib.util
import os
import textwrap
from typing import Any

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import cli

EXAMPLES = (
    "configs/imagenet_multisize.py train.",
    "voc07_detection:5scale features.",
    "caltech101_svm",
)


def define_flags() -> None:
    pass


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2:
        raise errors.InputError("give a preset, and which of its fields: PRESET train.")
    config = _load(arguments[0])
    prefix = arguments[1].removeprefix("config.") if len(arguments) > 1 else ""
    defaults = {entry.path: entry.value for entry in config_lib.entries(type(config)())}
    entries = [e for e in config_lib.entries(config) if e.path.startswith(prefix)]
    if not entries:
        raise errors.InputError(f"no field of {arguments[0]} begins with {prefix!r}")
    for entry in entries:
        default = defaults[entry.path]
        value = "" if entry.value == default else f"; here {entry.value!r}"
        wanted = entry.rule.wanted()
        limits = f"; {wanted}" if wanted else ""
        print(f"config.{entry.path}: {entry.kind_name} = {default!r}{value}{limits}")
        print(textwrap.indent(textwrap.fill(entry.rule.comment, 96), "    "))
    return 0


def _load(preset: str) -> Any:
    """Returns the config of a preset, NAME or FILE, with an argument after a colon."""
    path, has_argument, argument = cli.find_preset(preset).partition(":")
    spec = importlib.util.spec_from_file_location("preset", path)
    if not os.path.isfile(path) or spec is None or spec.loader is None:
        raise errors.InputError(f"there is no preset {path}; `spp presets` lists presets")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([argument] if has_argument else []))
    except errors.InputError:
        raise
    except Exception as e:  # a preset is a program of the user's, and can fail in any way
        raise errors.InputError(f"preset {preset}: {type(e).__name__}: {e}") from e
    if type(config).__name__ not in cli.COMMANDS:
        raise errors.InputError(f"get_config() of {path} returns no config, but {config!r}")
    return config
