"""Bin edges: literals of the paper's sizes, coverage, and the recipe that does not always work."""

import itertools

import pytest

from spp_jax.pooling import bins


@pytest.mark.parametrize(
    ("length", "n", "expected"),
    [
        # The maps of the 224- and the 180-pixel ZF-5.
        (13, 6, [(0, 3), (2, 5), (4, 7), (6, 9), (8, 11), (10, 13)]),
        (10, 6, [(0, 2), (1, 4), (3, 5), (5, 7), (6, 9), (8, 10)]),
        (10, 4, [(0, 3), (2, 5), (5, 8), (7, 10)]),
        (10, 3, [(0, 4), (3, 7), (6, 10)]),
        (10, 2, [(0, 5), (5, 10)]),
        (13, 1, [(0, 13)]),
        # Fewer cells than bins: cells repeat.
        (2, 3, [(0, 1), (0, 2), (1, 2)]),
        (1, 2, [(0, 1), (0, 1)]),
        # A bin can span one cell more than ceil(length / n) = 3.
        (16, 6, [(0, 3), (2, 6), (5, 8), (8, 11), (10, 14), (13, 16)]),
    ],
)
def test_adaptive_bins_by_hand(length, n, expected):
    assert bins.adaptive_bins(length, n) == expected


@pytest.mark.parametrize("length", range(1, 41))
@pytest.mark.parametrize("n", range(1, 9))
def test_adaptive_bins_are_n_and_cover_the_side(length, n):
    ranges = bins.adaptive_bins(length, n)
    assert len(ranges) == n
    assert all(start < stop for start, stop in ranges)
    assert {i for start, stop in ranges for i in range(start, stop)} == set(range(length))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == length
    if length >= n:  # neighbours share at most one cell and leave none out
        shared = [a[1] - b[0] for a, b in itertools.pairwise(ranges)]
        assert set(shared) <= {0, 1}


@pytest.mark.parametrize("n", [6, 4, 3, 2, 1])
def test_both_rules_agree_at_13(n):
    assert bins.sliding_bins(13, n) == bins.adaptive_bins(13, n)


@pytest.mark.parametrize(
    ("length", "n", "count"),
    # Which lengths the literal recipe serves, floor mode.
    [(10, 6, 9), (11, 6, 10), (11, 4, 5), (15, 6, 7), (17, 6, 8), (2, 3, 1)],
)
def test_the_literal_recipe_refuses_sides_it_cannot_cut(length, n, count):
    with pytest.raises(ValueError, match=rf"level {n} on a side of {length} cells.* {count} bins"):
        bins.sliding_bins(length, n)


def test_the_literal_recipe_loses_the_last_column_at_10_by_4():
    assert bins.sliding_bins(10, 4) == [(0, 3), (2, 5), (4, 7), (6, 9)]


@pytest.mark.parametrize("rule", [bins.adaptive_bins, bins.sliding_bins])
@pytest.mark.parametrize(("length", "n"), [(0, 1), (5, 0), (-1, 2)])
def test_empty_sides_and_levels_are_refused(rule, length, n):
    with pytest.raises(ValueError, match=f"side {length}, level {n}"):
        rule(length, n)
