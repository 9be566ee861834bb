"""Who may import whom (DESIGN 1), read from the code: a wrong arrow is a design mistake."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "spp_jax"

# What each room may import of the package; `sharding`, `errors` and `config` are top-level files.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "pooling": set(),
    "models": {"pooling"},
    "network": {"errors", "config", "models"},
    "sharding": {"errors"},
    "canvas": set(),
    "runs": {"errors", "config"},
    "checkpoint": {"errors", "config", "network", "runs", "sharding", "models", "spp_jax"},
    "data": {"errors", "config", "runs", "canvas"},
    "training": {
        *("errors", "config", "network", "runs", "sharding", "checkpoint", "models", "data"),
    },
    "evaluation": {
        *("errors", "config", "network", "runs", "sharding", "checkpoint"),
        *("pooling", "models", "canvas", "data"),
    },
    "detection": {
        *("errors", "config", "network", "runs", "sharding", "checkpoint"),
        *("pooling", "models", "canvas", "data", "evaluation", "training"),
    },
    "interop": {"errors", "config", "network", "checkpoint", "models", "cli"},
    "cli": {"errors", "runs"},
    "__init__": {"checkpoint", "evaluation", "models", "pooling"},
}

DATA_LIBRARIES = {"tensorflow_datasets", "grain", "cv2", "sklearn", "simplejpeg", "PIL"}


def _modules():
    return sorted(PACKAGE.rglob("*.py"))


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
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "spp_jax":
            continue
        target = parts[1] if len(parts) > 1 else "spp_jax"
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
    if _room(path) == "data":
        assert not roots & {"jax", "flax"}


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400
