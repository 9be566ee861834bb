"""The habits of docs/words.md and docs/architecture.md, read from the code."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "spp_jax"
MODULES = sorted(
    p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in ("presets",)
)
BESIDE = sorted(
    p
    for folder in ("tests", "benchmarks", "tools")
    for p in (PACKAGE.parent / folder).rglob("*.py")
)
LIBRARY = [p for p in MODULES if p.relative_to(PACKAGE).parts[0] != "commands"]

MAX_LINES = 60
MAX_PARAMETERS = 8
# Options of a public function, all keyword-only.
MANY_OPTIONS = {"extract", "_extract"}


def _name(path):
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else PACKAGE.parent))


def _tree(path):
    return ast.parse(path.read_text())


def _functions(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef):
            yield node


def _num_lines(function):
    """Returns the lines of a function but for its docstring, which says all that users need."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    return function.end_lineno - first.lineno + 1


def _positional(function):
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _parameters(function):
    return [*_positional(function), *(a.arg for a in function.args.kwonlyargs)]


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_functions_are_short_and_take_few_parameters(path):
    for function in _functions(path):
        assert _num_lines(function) <= MAX_LINES, function.name
        assert len(_parameters(function)) <= MAX_PARAMETERS or function.name in MANY_OPTIONS, (
            function.name
        )


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_randomness_comes_first(path):
    for function in _functions(path):
        names = _positional(function)
        for word in ("key", "rng"):
            annotations = {
                a.arg: ast.unparse(a.annotation) for a in function.args.args if a.annotation
            }
            if annotations.get(word) in ("jax.Array", "np.random.Generator"):
                assert names[0] == word, function.name


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_switches_are_no_masks(path):
    for function in _functions(path):
        arguments = [*function.args.args, *function.args.kwonlyargs]
        for a in arguments:
            if a.annotation is not None and ast.unparse(a.annotation) == "bool":
                assert not a.arg.startswith(("is_", "has_")), f"{function.name}({a.arg})"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_options_beyond_three_are_named(path):
    for function in _functions(path):
        if function.name.startswith("__"):
            continue
        names, count = _positional(function), len(function.args.defaults)
        options = names[len(names) - count :] if count else []
        assert not [o for o in options if names.index(o) >= 5], function.name


@pytest.mark.parametrize("path", [*MODULES, *BESIDE], ids=_name)
def test_no_result_is_called_found(path):
    nodes = list(ast.walk(_tree(path)))
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    assert not {n for n in names if n == "found" or n.endswith("_found")}


@pytest.mark.parametrize("path", LIBRARY, ids=_name)
def test_the_library_prints_nothing_and_names_no_flag(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            # A process of its own answers on its standard output.
            assert node.func.id != "print" or path.name == "mat_reader.py"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"(^|[ `(])--[a-z]", node.value), node.value


@pytest.mark.parametrize("folder", ["spp_jax", "tests", "benchmarks", "tools", "configs"])
def test_no_text_cites_what_is_not_there(folder):
    for path in (PACKAGE.parent / folder).rglob("*.py"):
        if path != pathlib.Path(__file__):
            assert not re.search(r"\b(PAPER|DESIGN)\b(?!_)", path.read_text()), path


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_public_names_say_what_they_are(path):
    tree = _tree(path)
    assert ast.get_docstring(tree) or not path.read_text().strip()
    for node in tree.body:
        is_public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
        if is_public and _name(path).split("/")[0] != "commands":
            assert ast.get_docstring(node), node.name
