"""The command `spp`: spatial pyramid pooling networks, from training to detection.

    train      trains an SPP network
    eval       scores a network, by one or several protocols
    extract    extracts features of images of any size
    detect     trains, scores and uses detectors: detect train|eval|predict|score
    launch     runs a command as several processes on this machine
    import     imports published weights
    networks   lists the networks
    prepare    prepares a data set once
    crops      writes crops around objects, to pre-train on
    fields     lists the fields of a preset
    presets    lists the presets

`spp COMMAND --help` says more of its flags, --config=PRESET among them. Examples:

    spp train --config=digits_multisize --workdir=runs/digits
    spp eval --workdir=runs/digits --protocol=full
    spp extract --checkpoint=runs/digits --images=PHOTOGRAPHS --layer=conv5 --output=conv5.npz
"""

import importlib
import sys

from spp_jax.commands import cli

_MODULES = {
    **{name: name for name in ("train", "eval", "extract", "detect", "networks", "prepare")},
    **{name: name for name in ("crops", "fields", "launch", "presets")},
    "import": "import_weights",
}
_WITH_ARGUMENTS = ("prepare", "fields")


def run() -> None:
    """Runs `spp COMMAND ...`."""
    argv = sys.argv
    if cli.HELP & set(argv[1:2]):
        print((__doc__ or "").strip())
        return
    name = cli.take_command(argv, tuple(_MODULES))
    command = importlib.import_module(f"spp_jax.commands.{_MODULES[name]}")
    argv = [f"spp {name}", *argv[1:]]
    if name in ("detect", "launch"):
        command.start(argv)
    cli.run(command, argv, arguments=name in _WITH_ARGUMENTS)
