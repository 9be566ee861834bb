"""Plans of batches: by hand, and what must hold of any."""

from hypothesis import given, settings
from hypothesis import strategies as st

from spp_jax.evaluation import canvases


def test_the_two_sizes_that_waste_least_are_merged():
    counts = {(10, 10): 100, (10, 12): 100, (10, 11): 1, (12, 10): 1}
    found = canvases.choose(counts, 3)
    # One image of 10 x 11 gains 10 pixels in 10 x 12; 100 of 10 x 10 would gain 10 each.
    assert found == {
        (10, 10): (10, 10), (10, 12): (10, 12), (10, 11): (10, 12), (12, 10): (12, 10),
    }  # fmt: skip
    assert set(canvases.choose(counts, 1).values()) == {(12, 12)}


def test_batches_are_nearly_full():
    sizes = dict.fromkeys(range(21), (8, 8)) | dict.fromkeys(range(21, 24), (16, 8))
    batches = canvases.plan(sizes, 8, max_pixels=16 * 64)
    # The largest canvas first; 21 images in two batches of 11, not in 16 and 5 of 16.
    assert [(b.canvas, b.num_rows, len(b.indices)) for b in batches] == [
        ((16, 8), 3, 3),
        ((8, 8), 11, 11),
        ((8, 8), 11, 10),
    ]
    assert canvases.padded_share(batches, sizes) == 1 - (21 * 64 + 3 * 128) / (22 * 64 + 3 * 128)


def test_rows_divide_among_devices():
    sizes = dict.fromkeys(range(5), (8, 8))
    assert [b.num_rows for b in canvases.plan(sizes, 1, 64, num_devices=4)] == [4, 4]
    assert [b.num_rows for b in canvases.plan(sizes, 1, 64 * 100, num_devices=4)] == [8]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=400),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_every_image_once_on_a_canvas_that_holds_it(sides, num_programs, num_devices):
    sizes = dict(enumerate(sides))
    batches = canvases.plan(sizes, num_programs, 2_000_000, num_devices)
    assert sorted(i for b in batches for i in b.indices) == list(sizes)
    assert len({(b.canvas, b.num_rows) for b in batches}) <= num_programs
    for batch in batches:
        assert 0 < len(batch.indices) <= batch.num_rows
        assert batch.num_rows % num_devices == 0
        assert all(
            sizes[i][0] <= batch.canvas[0] and sizes[i][1] <= batch.canvas[1] for i in batch.indices
        )
    assert 0 <= canvases.padded_share(batches, sizes) < 1
    assert batches == canvases.plan(sizes, num_programs, 2_000_000, num_devices)
