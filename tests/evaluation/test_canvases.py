"""Plans of batches: by hand, and what must hold of any."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from spp_jax.canvas import planning


def test_the_two_sizes_that_waste_least_are_merged():
    counts = {(10, 10): 100, (10, 12): 100, (10, 11): 1, (12, 10): 1}
    canvases = planning.choose(counts, 3, 144, compile_pixels=0)
    # One image of 10 x 11 gains 10 pixels in 10 x 12; 100 of 10 x 10 would gain 10 each.
    assert canvases == {
        (10, 10): (10, 10), (10, 12): (10, 12), (10, 11): (10, 12), (12, 10): (12, 10),
    }  # fmt: skip
    assert set(planning.choose(counts, 1, 144, compile_pixels=0).values()) == {(12, 12)}


def test_merging_ends_where_compiling_is_cheaper():
    counts = {(10, 10): 100, (10, 12): 100, (10, 11): 1, (12, 10): 1}
    # The cheapest unions add, one after the other, 10 pixels, 100 * 20, and 201 * 24 + 24.
    expected = ((10, 4), (11, 3), (2_000, 3), (2_001, 2), (4_848, 2), (4_849, 1))
    for compile_pixels, num_canvases in expected:
        canvases = planning.choose(counts, 4, 144, compile_pixels=compile_pixels)
        assert len(set(canvases.values())) == num_canvases, compile_pixels


def test_a_wide_and_a_tall_image_do_not_share_a_canvas():
    photographs = {(100, 150): 6}
    # A canvas for all would be 1000 x 1000: 67 photographs in memory, each computed as as many.
    canvases = planning.choose({**photographs, (100, 1000): 1, (1000, 100): 1}, 1, 1)
    assert canvases[(100, 1000)] != canvases[(1000, 100)]
    assert max(height * width for height, width in canvases.values()) <= 2 * 100 * 1000
    # Where a batch holds as much anyway, they may.
    canvases = planning.choose({(100, 1000): 1, (1000, 100): 1}, 1, max_pixels=1000 * 1000)
    assert set(canvases.values()) == {(1000, 1000)}


def test_rows_without_an_image_are_computed_as_well():
    counts = {(10, 10): 1, (10, 20): 1}
    # On one device a union adds 100 pixels; on four it saves a batch of four rows.
    assert len(set(planning.choose(counts, 2, 1, compile_pixels=0).values())) == 2
    assert len(set(planning.choose(counts, 2, 1, 4, compile_pixels=0).values())) == 1


def test_batches_are_nearly_full():
    sizes = dict.fromkeys(range(21), (8, 8)) | dict.fromkeys(range(21, 24), (16, 8))
    batches = planning.plan(sizes, 8, max_pixels=16 * 64, compile_pixels=0)
    # The largest canvas first; 21 images in two batches of 11, not in 16 and 5 of 16.
    assert [(b.canvas, b.num_rows, len(b.indices)) for b in batches] == [
        ((16, 8), 3, 3),
        ((8, 8), 11, 11),
        ((8, 8), 11, 10),
    ]
    assert planning.padded_share(batches, sizes) == 1 - (21 * 64 + 3 * 128) / (22 * 64 + 3 * 128)


def test_rows_divide_among_devices():
    sizes = dict.fromkeys(range(5), (8, 8))
    assert [b.num_rows for b in planning.plan(sizes, 1, 64, num_devices=4)] == [4, 4]
    assert [b.num_rows for b in planning.plan(sizes, 1, 64 * 100, num_devices=4)] == [8]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=400),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_every_image_once_on_a_canvas_that_holds_it(sides, num_programs, num_devices):
    sizes = dict(enumerate(sides))
    batches = planning.plan(sizes, num_programs, 2_000_000, num_devices)
    assert sorted(i for b in batches for i in b.indices) == list(sizes)
    chosen = {(b.canvas, b.num_rows) for b in batches}
    # Sides are rounded to 64 at most where there are many sizes.
    largest = max(-(-h // 64) * 64 * -(-w // 64) * 64 for h, w in sides)
    limit = max(2_000_000, 2 * largest)
    assert all(height * width <= limit for (height, width), _ in chosen)
    if len(chosen) > num_programs:
        largest = max(h * w for h, w in sides)
        for (a, _), (b, _) in itertools.combinations(chosen, 2):
            assert max(a[0], b[0]) * max(a[1], b[1]) > max(2_000_000, 2 * largest)
    for batch in batches:
        assert 0 < len(batch.indices) <= batch.num_rows
        assert batch.num_rows % num_devices == 0
        assert all(
            sizes[i][0] <= batch.canvas[0] and sizes[i][1] <= batch.canvas[1] for i in batch.indices
        )
    assert 0 <= planning.padded_share(batches, sizes) < 1
    assert batches == planning.plan(sizes, num_programs, 2_000_000, num_devices)
