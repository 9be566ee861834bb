"""Bytes, error and decoding speed of images stored at shorter side 256 against the originals.

    python -m benchmarks.imagenet_decode --images=FOLDER --output=docs/results/imagenet_decode.json

FOLDER holds JPEG files at their original sizes. Each is decoded as in training, to shorter side
256, on one core, from the original and from JPEGs of several qualities, as imagenet2012_256 might
store it; the variants take turns in every round. Error is against the image before it is stored.
"""

import os
import statistics
import time

import cv2
import numpy as np
import simplejpeg
from absl import app, flags

from benchmarks import facts
from spp_jax.data import images
from spp_jax.data.imagenet import preparing

_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEG files.", required=True)
_OUTPUT = flags.DEFINE_string("output", "docs/results/imagenet_decode.json", "JSON to write.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each variant is decoded.", lower_bound=1)

VARIANTS = ((90, "420"), (92, "420"), (95, "420"), (90, "444"), (92, "444"), (95, "444"))


def read(data: bytes) -> np.ndarray:
    """Decodes as training does (`loading.views.TrainView.read`)."""
    side = preparing.SHORTER_SIDE
    return images.resize_shorter(images.decode(data, "image", shorter_side=side), side)


def shrink(data: bytes) -> np.ndarray:
    """Decodes as `imagenet.encode` does: smaller images keep their size."""
    image = images.decode(data, "image", shorter_side=preparing.SHORTER_SIDE)
    return image if min(image.shape[:2]) <= preparing.SHORTER_SIDE else read(data)


def measure(originals: list[bytes], rounds: int) -> list[dict]:
    """Returns for the originals and each variant its name, bytes, error and speed."""
    small = [shrink(data) for data in originals]
    stored = {"original": originals}
    for quality, chroma in VARIANTS:
        stored[f"quality {quality}, {':'.join(chroma)}"] = [
            simplejpeg.encode_jpeg(image, quality, "RGB", chroma) for image in small
        ]
    seconds: dict[str, list[float]] = {name: [] for name in stored}
    for _ in range(rounds):
        for name, files in stored.items():
            start = time.perf_counter()
            for data in files:
                read(data)
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, files in stored.items():
        differences = [
            np.abs(images.decode(data, name).astype(int) - image).mean()
            for data, image in zip(files, small)
            if name != "original"
        ]
        rows.append(
            {
                "stored": name,
                "bytes_per_image": round(statistics.mean(map(len, files))),
                "mean_error_levels": round(float(np.mean(differences or [0.0])), 2),
                "images_per_second": round(len(files) / statistics.median(seconds[name])),
                "times_as_fast": round(
                    statistics.median(a / b for a, b in zip(seconds["original"], seconds[name])),
                    2,
                ),
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    """Returns a Markdown table."""
    lines = [
        "| stored as | kB an image | mean error, levels | images/s on one core | times as fast |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['stored']} | {row['bytes_per_image'] / 1000:.1f} | "
            f"{row['mean_error_levels']:.2f} | {row['images_per_second']} | "
            f"{row['times_as_fast']:.1f} |"
        )
    return "\n".join(lines)


def main(_: list[str]) -> None:
    cv2.setNumThreads(0)
    names = sorted(os.listdir(_IMAGES.value))
    originals = []
    for name in names:
        with open(os.path.join(_IMAGES.value, name), "rb") as f:
            originals.append(f.read())
    rows = measure(originals, _ROUNDS.value)
    command = f"python -m benchmarks.imagenet_decode --images=FOLDER of {len(names)} images"
    libraries = ("simplejpeg", "opencv-contrib-python-headless")
    facts.write(_OUTPUT.value, {**facts.facts(command, *libraries), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
