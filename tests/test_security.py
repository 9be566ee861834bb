"""No source runs what a file says, and SECURITY.md names only what there is."""

import ast
import pathlib
import re

import pytest

from spp_jax import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(
    [*ROOT.glob("*.py")]
    + [p for f in ("spp_jax", "benchmarks", "tools", "configs") for p in (ROOT / f).rglob("*.py")]
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Modules whose formats are programs: reading such a file runs it.
SERIALISERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NETWORK = {
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "requests",
    "smtplib",
    "socket",
    "telnetlib",
    "urllib.request",
    "urllib3",
    "xmlrpc",
}
CALLS = {
    "__import__",
    "compile",
    "eval",
    "exec",
    "importlib.util.spec_from_file_location",
    "os.popen",
    "os.system",
    "tempfile.mktemp",
    "torch.load",
    "runpy.run_path",
}
RUNS_PROGRAMS = re.compile(r"os\.(exec|spawn|posix_spawn)\w+|pty\.spawn")
# Parts of a name of a file that others can foretell.
FORESEEN = re.compile(r"os\.getpid|random\.\w+|numpy\.random\.\w+|time\.time(_ns)?")
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
# Those that hold in tests too, which may do the rest.
EVERYWHERE = re.compile("import of (" + "|".join(SERIALISERS) + ")|(eval|exec|os.system)$")

# {(file, rule): why it is right there}.
ALLOWED = {
    ("spp_jax/__init__.py", "importlib.import_module"): "names of a table in that file",
    ("spp_jax/commands/main.py", "importlib.import_module"): "names of a table in that file",
    ("spp_jax/commands/fields.py", "importlib.util.spec_from_file_location"): (
        "a preset is a program of the user's, as SECURITY.md says"
    ),
    ("spp_jax/data/sources/voc_xml.py", "import of xml"): "the one reader, which refuses DTDs",
    ("spp_jax/detection/proposals/window_files.py", "import of subprocess"): (
        "scipy reads .mat files in a process of its own"
    ),
    ("spp_jax/cluster.py", "import of socket"): "the host's name, for sentences",
    ("spp_jax/commands/launch.py", "import of socket"): "a free port, for the processes it starts",
    ("spp_jax/commands/launch.py", "import of subprocess"): "runs the project's own commands",
    ("spp_jax/runs/lock.py", "import of socket"): "the host's name, for the lock's holder",
    ("spp_jax/training/logs.py", "import of socket"): "the host's name, for TensorBoard",
    ("spp_jax/training/logs.py", "name of time.time"): "the name that TensorBoard looks for",
    ("benchmarks/device_tests.py", "import of xml"): "the report of pytest, which it has just run",
    **{
        (f"{name}.py", "import of subprocess"): "runs the project's own commands, or a compiler"
        for name in (
            "benchmarks/__main__",
            "benchmarks/accuracy",
            "benchmarks/device_tests",
            "benchmarks/facts",
            "benchmarks/gpu_check",
            "benchmarks/start",
            "benchmarks/windows",
            "tools/readme_check",
            "tools/try_imagenet2012",
            "tools/wheel_check",
        )
    },
}


class _Walker(ast.NodeVisitor):
    """Collects the rules that a source breaks."""

    def __init__(self):
        self.rules: set[str] = set()
        self._names: dict[str, str] = {}

    def visit_Import(self, node):
        for alias in node.names:
            self._import(alias.name)
            name = alias.asname or alias.name.split(".")[0]
            self._names[name] = alias.name if alias.asname else name

    def visit_ImportFrom(self, node):
        for alias in node.names:
            self._import(f"{node.module}.{alias.name}")
            self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _import(self, name):
        parts = name.split(".")
        starts = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        listed = SERIALISERS | NETWORK | {"xml", "lxml", "subprocess"}
        self.rules |= {f"import of {name}" for name in starts & listed}

    def _dotted(self, node):
        """Returns the whole name of what is called, with the modules it was imported from."""
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return self._names.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def visit_Call(self, node):
        name = self._dotted(node.func)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in CALLS or RUNS_PROGRAMS.fullmatch(name):
            self.rules.add(name)
        for option in ("allow_pickle", "shell"):
            value = options.get(option)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
                self.rules.add(f"{option}=")
        if name == "numpy.load" and len(node.args) > 2:
            self.rules.add("allow_pickle=")
        if name in ("yaml.load", "yaml.load_all"):
            loader = options.get("Loader", node.args[1] if node.args[1:] else None)
            if loader is None or self._dotted(loader) not in SAFE_LOADERS:
                self.rules.add("yaml.load")
        if re.match(r"yaml\.(unsafe|full)_load", name):
            self.rules.add("yaml.load")
        is_archive = {"tarfile", "zipfile"} & {n.split(".")[0] for n in self._names.values()}
        if name.endswith(".extractall") or (is_archive and name.endswith(".extract")):
            value = options.get("filter")
            if not (isinstance(value, ast.Constant) and value.value == "data"):
                self.rules.add("extract without filter")
        if name in ("shutil.unpack_archive", "importlib.reload"):
            self.rules.add(name)
        first = node.args[0] if node.args else options.get("args")
        if name == "importlib.import_module" and not isinstance(first, ast.Constant):
            self.rules.add(name)
        is_text = isinstance(first, ast.JoinedStr | ast.BinOp) or (
            isinstance(first, ast.Constant) and isinstance(first.value, str)
        )
        if re.fullmatch(r"subprocess\.\w+", name) and is_text:
            self.rules.add("subprocess with a text")
        if re.fullmatch(r"subprocess\.get(status)?output", name):
            self.rules.add("subprocess with a text")
        if name in ("open", "os.path.join", "os.open", "pathlib.Path"):
            self._look_for_foreseen(node)
        self.generic_visit(node)

    def visit_JoinedStr(self, node):
        self._look_for_foreseen(node)
        self.generic_visit(node)

    def _look_for_foreseen(self, node):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and FORESEEN.fullmatch(self._dotted(inner.func)):
                self.rules.add(f"name of {self._dotted(inner.func)}")

    def visit_Constant(self, node):
        if isinstance(node.value, str) and re.match(r"/(var/)?tmp(/|$)", node.value):
            self.rules.add("name in /tmp")


def _rules(source):
    """Returns the rules that a source breaks, as they are called in ALLOWED."""
    walker = _Walker()
    walker.visit(ast.parse(source))
    return walker.rules


def _name(path):
    return str(path.relative_to(ROOT))


def test_there_are_sources_to_walk():
    assert {"train.py", "spp_jax/checkpoint.py", "configs/voc07_svm.py"} <= set(map(_name, SOURCES))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_sources_break_no_rule(path):
    allowed = {rule for file, rule in ALLOWED if file == _name(path)}
    assert _rules(path.read_text()) - allowed == set()


def test_what_is_allowed_is_there():
    stale = [(f, rule) for f, rule in ALLOWED if rule not in _rules((ROOT / f).read_text())]
    assert not stale
    assert all(ALLOWED.values())


@pytest.mark.parametrize("path", TESTS, ids=_name)
def test_tests_run_nothing_either(path):
    assert not {rule for rule in _rules(path.read_text()) if EVERYWHERE.match(rule)}


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        *((f"import {name}", f"import of {name}") for name in sorted(SERIALISERS)),
        ("from pickle import loads", "import of pickle"),
        ("import os, joblib as j", "import of joblib"),
        ("def f():\n    import dill.source", "import of dill"),
        *((f"import {name}", f"import of {name}") for name in sorted(NETWORK)),
        ("from urllib import request", "import of urllib.request"),
        ("import http.client", "import of http"),
        ("import xml.etree.ElementTree as ET", "import of xml"),
        ("from xml.dom import minidom", "import of xml"),
        ("from lxml import etree", "import of lxml"),
        ("import subprocess", "import of subprocess"),
        ("eval('1')", "eval"),
        ("x = [exec(s) for s in texts]", "exec"),
        ("compile(text, 'x', 'exec')", "compile"),
        ("__import__(name)", "__import__"),
        ("import os\nos.system('ls')", "os.system"),
        ("import os as o\no.popen('ls')", "os.popen"),
        ("from os import system as s\ns('ls')", "os.system"),
        ("import os\nos.execvp(name, [])", "os.execvp"),
        ("import runpy\nrunpy.run_path(p)", "runpy.run_path"),
        ("import yaml\nyaml.load(f)", "yaml.load"),
        ("import yaml\nyaml.load(f, Loader=yaml.Loader)", "yaml.load"),
        ("import yaml\nyaml.load(f, yaml.UnsafeLoader)", "yaml.load"),
        ("from yaml import load\nload(f)", "yaml.load"),
        ("import yaml\nyaml.unsafe_load(f)", "yaml.load"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "allow_pickle="),
        ("import numpy as np\nnp.load(f, allow_pickle=flag)", "allow_pickle="),
        ("import numpy as np\nnp.load(f, None, True)", "allow_pickle="),
        ("np.savez(f, allow_pickle=True)", "allow_pickle="),
        ("import subprocess\nsubprocess.run(c, shell=True)", "shell="),
        ("run(c, shell=flag)", "shell="),
        ("import subprocess\nsubprocess.run('ls')", "subprocess with a text"),
        ("import subprocess\nsubprocess.Popen(args=f'ls {x}')", "subprocess with a text"),
        ("from subprocess import check_output as c\nc('ls ' + x)", "subprocess with a text"),
        ("import subprocess\nsubprocess.getoutput(x)", "subprocess with a text"),
        ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp"),
        ("from tempfile import mktemp\nmktemp()", "tempfile.mktemp"),
        ("open('/tmp/x')", "name in /tmp"),
        ("path = f'/tmp/{name}'", "name in /tmp"),
        ("path = '/var/tmp'", "name in /tmp"),
        ("import os\npath = f'x.{os.getpid()}'", "name of os.getpid"),
        ("import os\nopen('x' + str(os.getpid()))", "name of os.getpid"),
        ("import random\npath = f'x{random.random()}'", "name of random.random"),
        ("import os, time\nos.path.join(d, str(time.time()))", "name of time.time"),
        ("import tarfile\ntarfile.open(p).extractall(d)", "extract without filter"),
        ("import tarfile\ntar.extractall(d, filter='tar')", "extract without filter"),
        ("import tarfile\ntar.extract(member)", "extract without filter"),
        ("from zipfile import ZipFile\nZipFile(p).extractall()", "extract without filter"),
        ("import shutil\nshutil.unpack_archive(p)", "shutil.unpack_archive"),
        ("import torch\ntorch.load(p)", "torch.load"),
        ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
        ("from importlib import import_module\nimport_module(f'{x}')", "importlib.import_module"),
        (
            "import importlib.util\nimportlib.util.spec_from_file_location('x', p)",
            "importlib.util.spec_from_file_location",
        ),
    ],
)
def test_the_walker_finds(source, rule):
    assert rule in _rules(source)


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('x')",
        "jitted.lower(x).compile()",
        "import ast\nast.literal_eval(x)",
        "import yaml\nyaml.safe_load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.SafeLoader)",
        "import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)",
        "run(c, shell=False)",
        "import tarfile\ntar.extractall(d, filter='data')",
        "extraction.extract(model)",
        "import tempfile\ntempfile.TemporaryDirectory()",
        "import importlib\nimportlib.import_module('torch')",
        "import os, time\nprint(os.getpid(), time.time() - start)",
        "import urllib.parse",
        "path = 'tmp/x'",
    ],
)
def test_the_walker_lets_pass(source):
    assert _rules(source) == set()


def _security():
    return (ROOT / "SECURITY.md").read_text()


def test_config_fields_of_security_are_there():
    names = set(re.findall(r"`config\.([a-z0-9_.]+)", _security()))
    configs = (config_lib.Config(), config_lib.DetectionConfig())
    fields = {entry.path for c in configs for entry in config_lib.entries(c)}
    assert {"data.max_megapixels", "data.max_side_ratio"} <= names
    assert names <= fields


def test_tests_of_security_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", _security())
    assert len(named) > 10
    for file, function in named:
        assert (ROOT / file).is_file(), file
        assert not function or f"def {function}(" in (ROOT / file).read_text(), function


def test_files_and_constants_of_security_are_there():
    constants = re.findall(r"`(spp_jax/[\w/]+\.py):(\w+)`", _security())
    assert len(constants) > 5
    for file, name in constants:
        assert re.search(rf"^{name}\b", (ROOT / file).read_text(), re.MULTILINE), (file, name)
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(SECURITY.md)" in (ROOT / page).read_text()
