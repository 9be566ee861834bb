"""Who may import whom, as docs/architecture.md has it: a wrong arrow is a design mistake."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "spp_jax"

ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"

# Who may import `commands`: what answers `python -m`.
ENTRIES = {
    "__main__.py",
    "data/object_crops.py",
    "data/prepare.py",
    "interop/__main__.py",
    "models/__main__.py",
}


def _table():
    """Returns {room: what it may import}, from the table of docs/architecture.md."""
    text = ARCHITECTURE.read_text().split("## Imports")[1].split("## ")[0]
    rows = [line.strip("| \n").split("|") for line in text.splitlines() if line.startswith("|")]
    return {
        room.strip(): {name.strip() for name in "".join(allowed).split(",")} - {""}
        for room, *allowed in rows[2:]
    }


ALLOWED = _table()

DATA_LIBRARIES = {"tensorflow_datasets", "grain", "cv2", "sklearn", "simplejpeg", "PIL"}


def _modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] != "presets")


def _room(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def _imports(path):
    """Returns the dotted names a file imports; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(path):
    room = _room(path)
    if room in ("commands", "__init__") or str(path.relative_to(PACKAGE)) in ENTRIES:
        return  # commands import everything, and the package's face its homes
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "spp_jax":
            continue
        target = parts[1] if len(parts) > 1 else room  # the version, which checkpoint stores
        assert target in ALLOWED[room] | {room}, f"{path} imports {name}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_device_code_needs_no_data_library_and_data_no_jax(path):
    roots = {name.split(".")[0] for name in _imports(path)}
    names = ("steps.py", "programs.py", "device.py")
    is_device_code = _room(path) in ("pooling", "models", "canvas") or path.name in names
    if is_device_code:
        assert not roots & DATA_LIBRARIES
    if _room(path) == "pooling":
        assert not roots & {"flax", "optax"}
    if _room(path) in ("data", "config", "runs"):
        assert not roots & {"jax", "flax"}


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_imports_look_for_no_devices():
    # A platform that is not there is an error as soon as JAX looks for its devices: a program that
    # sets up several processes, or chooses a platform, does so after it has imported the package.
    names = [
        ".".join(("spp_jax", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in _modules()
    ]
    names = [name for name in names if not name.endswith("__main__")]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
