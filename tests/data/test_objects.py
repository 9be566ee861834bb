"""Sources of images with boxes: the embedded groups of digits, and TFDS sets in VOC's form."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.embedded import digit_groups, digits
from spp_jax.data.sources import objects, voc


@pytest.fixture(scope="module")
def groups():
    inks, labels = digits.load_digits()
    pool = digits.split_pools(labels)["train"]
    return [
        digit_groups.make_group(np.random.default_rng(i), inks, labels, pool) for i in range(40)
    ]


def test_groups_are_of_one_to_five_digits_apart(groups):
    assert {len(g.labels) for g in groups} == {1, 2, 3, 4, 5}
    assert {label for g in groups for label in g.labels} == set(range(10))
    for group in groups:
        height, width, _ = group.image.shape
        assert group.image.dtype == np.uint8
        for i, (x1, y1, x2, y2) in enumerate(group.boxes):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            for other in group.boxes[:i]:
                assert x1 >= other[2] or other[0] >= x2 or y1 >= other[3] or other[1] >= y2


def test_every_digit_can_be_told_from_what_is_around_it(groups):
    luma = np.asarray([0.299, 0.587, 0.114])
    for group in groups[:10]:
        shown = group.image @ luma
        for x1, y1, x2, y2 in group.boxes:
            border = np.concatenate([shown[y1, x1:x2], shown[y2 - 1, x1:x2]])
            inside = shown[y1:y2, x1:x2]
            assert np.abs(inside - np.median(border)).max() >= digits.MIN_CONTRAST / 2


def test_the_same_group_every_time(groups):
    inks, labels = digits.load_digits()
    pool = digits.split_pools(labels)["train"]
    again = digit_groups.make_group(np.random.default_rng(3), inks, labels, pool)
    np.testing.assert_array_equal(again.image, groups[3].image)
    assert again.boxes == groups[3].boxes


class VocLike(tfds.core.GeneratorBasedBuilder):
    """Two images as TFDS's voc has them; the second has boxes that are empty or not inside."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        features = tfds.features
        objects_feature = {
            "bbox": features.Tensor(shape=(4,), dtype=np.float32),
            "label": features.ClassLabel(names=["cat", "dog"]),
            "is_difficult": np.bool_,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(encoding_format="png"),
                    "objects": features.Sequence(objects_feature),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"trainval": self._generate_examples()}

    def _generate_examples(self):
        import cv2

        for i in range(2):
            _, png = cv2.imencode(".png", np.full((333, 500, 3), i, np.uint8))
            annotated = [
                # VOC's 1-based inclusive (3, 4, 250, 333), as TFDS stores it.
                {
                    "bbox": np.asarray([3 / 333, 2 / 500, 333 / 333, 250 / 500], np.float32),
                    "label": 1,
                    "is_difficult": i == 1,
                }
            ]
            if i:
                # ymin, xmin, ymax, xmax: empty, of no class, cut to the image, and outside it.
                for corners, label in (
                    ((0.5, 0.5, 0.5, 0.9), 0),
                    ((0.1, 0.1, 0.9, 0.9), -1),
                    ((-0.5, 0.5, 0.5, 1.5), 0),
                    ((1.5, 0.0, 2.0, 1.0), 1),
                ):
                    box = np.asarray(corners, np.float32)
                    annotated.append({"bbox": box, "label": label, "is_difficult": False})
            yield i, {"image": io.BytesIO(png.tobytes()), "objects": annotated}


@pytest.fixture(scope="module")
def voc_like(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("tfds"))
    VocLike(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_boxes_come_back_in_pixels(voc_like):
    source = objects.open_objects("voc_like", voc_like, "trainval")
    assert (len(source), source.image_ids) == (2, ("0", "1"))
    by_colour = [int(images.decode(source[i].data, "x")[0, 0, 0]) for i in range(2)]
    first, second = (source.annotation(by_colour.index(i)) for i in range(2))
    assert first.objects == (voc.Object("dog", (2, 3, 250, 333), False),)
    assert second.objects == (
        voc.Object("dog", (2, 3, 250, 333), True),
        voc.Object("cat", (250, 0, 500, 166.5), False),
    )
    assert first.skipped == ()
    assert first.size == (333, 500)
    name = source.name(by_colour.index(1))
    assert name.startswith("voc_like[trainval][")
    assert second.skipped == (
        f"{name}: box (250, 166.5, 450, 166.5) of cat is empty",
        f"{name}: box (50, 33.3, 450, 299.7) is of an object without a name",
        f"{name}: box (0, 499.5, 500, 666) of dog lies outside the image of 500x333",
    )


def test_what_has_no_boxes_is_refused(voc_like, tmp_path):
    with pytest.raises(errors.InputError, match="no split 'test', only trainval"):
        objects.open_objects("voc_like", voc_like, "test")
    with pytest.raises(errors.InputError, match=r"config\.data\.path is not set"):
        objects.open_objects("voc", "", "test")
    with pytest.raises(errors.InputError, match="not_a_set"):
        objects.open_objects("not_a_set", str(tmp_path), "test")


def test_splits_may_be_added_up(voc_like):
    source = objects.open_objects("voc_like", voc_like, "trainval+trainval[:50%]")
    assert len(source) == 3
    with pytest.raises(errors.InputError, match=r"no split 'trainval\+test'"):
        objects.open_objects("voc_like", voc_like, "trainval+test")
