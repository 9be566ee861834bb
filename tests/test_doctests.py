"""The examples in docstrings are true."""

import doctest

import pytest

from spp_jax.detection import boxes
from spp_jax.pooling import bins, max_pool, pyramid, windows


@pytest.mark.parametrize(
    ("module", "count"), [(bins, 2), (max_pool, 2), (pyramid, 2), (windows, 2), (boxes, 5)]
)
def test_examples(module, count):
    # What the device's functions are decorated with hides them from doctest's own search.
    names = {n: getattr(v, "__wrapped__", v) for n, v in vars(module).items() if callable(v)}
    examples = [
        test
        for name, value in names.items()
        if getattr(value, "__module__", "") == module.__name__
        for test in doctest.DocTestFinder(recurse=False).find(value, name, globs=vars(module))
    ]
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in examples]
    assert sum(r.failed for r in results) == 0
    assert sum(r.attempted for r in results) == count
