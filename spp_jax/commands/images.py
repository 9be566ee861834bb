"""How the commands' own process handles images."""

import cv2


def use_one_thread() -> None:
    """Images are read in parallel already; OpenCV's own threads would be too many."""
    cv2.setNumThreads(0)
