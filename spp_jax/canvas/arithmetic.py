"""Sizes of images and positions of crops as plain arithmetic; sizes are (height, width), pixels."""

NUM_POSITIONS = 5  # of five_crop_origin


def round_up(height: int, width: int, step: int) -> tuple[int, int]:
    """Returns (height, width) rounded up to multiples of `step`, so that images share canvases."""
    return -(-height // step) * step, -(-width // step) * step


def shorter_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns the (height, width) whose shorter side is `side`, the longer one rounded half up."""
    shorter = min(height, width)
    return (
        (2 * height * side + shorter) // (2 * shorter),
        (2 * width * side + shorter) // (2 * shorter),
    )


def five_crop_origin(height: int, width: int, size: int, position: int) -> tuple[int, int]:
    """Returns the (top, left) of one of the paper's five square crops of a whole image.

    Positions are 0 centre (half pixels are rounded to the top and left), 1 top left, 2 top right,
    3 bottom left, 4 bottom right. The corners are the whole image's, not its central square's
    (section 3.1).

    Args:
        height, width: of the image.
        size: side of the crop.
        position: 0..4.

    Raises:
        ValueError: there is no such position, or the crop is larger than the image.
    """
    if not 0 <= position < NUM_POSITIONS:
        raise ValueError(f"position must be in 0..{NUM_POSITIONS - 1}, got {position}")
    if not 1 <= size <= min(height, width):
        raise ValueError(f"a {size}x{size} crop does not fit an image of {height}x{width}")
    down, right = height - size, width - size
    if position == 0:
        return down // 2, right // 2
    return (0, down)[(position - 1) // 2], (0, right)[(position - 1) % 2]
