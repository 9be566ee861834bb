"""Pictures of results: precision and recall of each class, and detections on their image."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.figure
import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.detection import prediction
from spp_jax.detection.scoring import mean_ap
from spp_jax.evaluation import average_precision
from spp_jax.runs import files

_COLUMNS = 4
_TITLE = 24  # characters of a class's name


def draw_curves(path: str, curves: Mapping[str, mean_ap.Curve]) -> None:
    """Writes a PNG with the precision-recall curve of each class."""
    num_rows = -(-len(curves) // _COLUMNS)
    num_columns = min(_COLUMNS, len(curves))
    # Not by pyplot, which keeps figures and looks for a screen.
    figure = matplotlib.figure.Figure(
        figsize=(3 * num_columns, 2.6 * num_rows), layout="constrained"
    )
    grid = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, (name, curve) in zip(grid.flat, curves.items()):
        axes.plot(curve.recall, curve.precision, linewidth=1.2)
        tenths = average_precision.TENTHS
        best = [np.max(curve.precision[curve.recall >= t], initial=0) for t in tenths]
        axes.plot(tenths, best, "k.", markersize=4)
        shown = f"AP {100 * curve.ap_11point:.1f}" if curve.num_objects else "no objects"
        # "$" is no formula, and a long name would leave no place for its curve.
        title = " ".join(name.split())
        title = title if len(title) <= _TITLE else title[: _TITLE - 3] + "..."
        axes.set_title(f"{title}: {shown}", fontsize=9, parse_math=False)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    with files.replacing(path) as f:
        figure.savefig(f, dpi=100, format="png")


def annotate(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str]
) -> np.ndarray:
    """Returns a copy of an image (H, W, 3) RGB with a box and a text for each detection.

    Args:
        image: uint8.
        boxes: (D, 4), best first: they are drawn last.
        labels: (D,) classes; each has a colour.
        texts: (D,).
    """
    shown = image.copy()
    unit = max(image.shape[:2]) / 600
    width = max(1, round(2 * unit))
    scale = max(0.35, 0.45 * unit)
    for box, label, text in reversed(list(zip(boxes, labels, texts))):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        # Hues by the golden angle: neighbours in the list of classes differ most.
        hue = np.asarray([[[int(label * 137.5) % 180, 230, 255]]], np.uint8)
        color = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.rectangle(shown, (x1, y1), (x2 - 1, y2 - 1), color, width)
        (long, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        top = max(0, y1 - high - below)
        cv2.rectangle(shown, (x1, top), (x1 + long, top + high + below), color, cv2.FILLED)
        place = (x1, top + high)
        cv2.putText(shown, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return shown


def write_prediction(target: str, image: prediction.Prediction) -> None:
    """Writes TARGET.json, the detections of an image, and TARGET.png, which shows them."""
    height, width = image.size
    facts = {
        "image": image.path,
        "height": height,
        "width": width,
        "detections": image.detections,
    }
    files.write_json(target + ".json", facts, indent=2)
    pixels = images.decode(images.read_file(image.path), image.path)
    boxes = np.asarray([d["box"] for d in image.detections]).reshape(-1, 4)
    texts = [f"{d['class']} {d['score']:.2f}" for d in image.detections]
    write_png(target + ".png", annotate(pixels, boxes, image.labels, texts))


def write_png(path: str, image: np.ndarray) -> None:
    """Writes an image (H, W, 3) RGB; raises InputError where that cannot be done."""
    try:
        with files.replacing(path) as f:
            f.write(images.encode(image, ".png"))
    except OSError as e:
        raise errors.InputError(f"{path} cannot be written: {e.strerror}") from e
