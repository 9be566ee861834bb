"""Bin edges of one pyramid level along one side of a feature map.

A side of `length` cells is cut into `n` half-open ranges [start, stop) of cells, 0-based.
"""


def adaptive_bins(length: int, n: int) -> list[tuple[int, int]]:
    """Returns n ranges [floor(i*length/n), ceil((i+1)*length/n)) that cover a side of any length.

    The rule of the paper's appendix A, which it applies to windows, used here in training as well:
    no range is ever empty, neighbours share at most one cell when length >= n, and cells repeat
    when length < n. Equal to the literal recipe (`sliding_bins`) at the paper's 13 x 13 map.

    >>> adaptive_bins(10, 6)
    [(0, 2), (1, 4), (3, 5), (5, 7), (6, 9), (8, 10)]

    Raises:
      ValueError: length or n is less than 1.
    """
    _check(length, n)
    return [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]


def sliding_bins(length: int, n: int) -> list[tuple[int, int]]:
    """Returns the n ranges of a pooling window ceil(length/n) moved by floor(length/n).

    The literal recipe of the paper's section 2.3. It gives n ranges for few lengths only: at 10
    cells, the paper's own 180-pixel network, six bins would come out as nine.

    >>> sliding_bins(13, 3)
    [(0, 5), (4, 9), (8, 13)]

    Raises:
      ValueError: length or n is less than 1, or the recipe gives another count than n.
    """
    _check(length, n)
    size, stride = -(-length // n), length // n
    count = (length - size) // stride + 1 if stride else 1
    if count != n:
        raise ValueError(
            f"sliding bins of level {n} on a side of {length} cells: a window of {size} moved by "
            f'{stride} gives {count} bins instead of {n}; use bins="adaptive"'
        )
    return [(i * stride, i * stride + size) for i in range(n)]


def _check(length: int, n: int) -> None:
    if length < 1 or n < 1:
        raise ValueError(
            f"bins need a side and a level of at least 1, got side {length}, level {n}"
        )
