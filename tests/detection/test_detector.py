"""A detector from end to end on shapes: trained, interrupted, tested, combined, and predicting."""

import dataclasses
import functools
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import tables
from spp_jax.data.sources import voc
from spp_jax.detection import dataset, detector, prediction
from spp_jax.detection.learning import stages
from spp_jax.detection.scoring import devkit, mean_ap, testing
from spp_jax.runs import files
from tests.detection import shapes
from tests.support import commands, said


def _read_image(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shapes.make_voc(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    network = shapes.make_network(tmp_path_factory.mktemp("network"))
    workdir = str(tmp_path_factory.mktemp("detector"))
    config = shapes.make_config(root, network)
    stages.train(config, workdir)
    result = testing.score_split(workdir, config).result
    # It goes on with these detections, and writes what the library returns.
    commands.output_of("detect.py", "eval", f"--workdir={workdir}")
    return workdir, config, result


def test_it_finds_the_shapes(trained):
    workdir, _, result = trained
    # Colours are easy, even for random weights.
    assert result["map_11point"] > 0.9
    assert result["num_objects"] == {"disc": 6, "square": 6}
    stored = json.loads((pathlib.Path(workdir) / "eval.json").read_text())
    assert stored == json.loads(json.dumps(result))  # tuples are lists there
    curves = _read_image(f"{workdir}/detections/curves_test.png")
    assert curves is not None
    assert curves.std() > 10


def test_its_files_score_as_it_did(trained, root, tmp_path):
    workdir, _, result = trained
    output, folder = tmp_path / "score.json", f"{workdir}/detections"
    again = testing.score_files(root, folder, split="test")
    for name in ("map_11point", "map_area", "ap_11point", "ap_area", "num_detections"):
        assert again[name] == pytest.approx(result[name])
    flags = (f"--data={root}", f"--detections={folder}", f"--output={output}")
    commands.output_of("detect.py", "score", *flags)
    assert json.loads(output.read_text())["map_11point"] == again["map_11point"]


def test_detections_are_suppressed_and_inside_the_image(trained, root):
    workdir, config, _ = trained
    source = voc.VocSource(root, "test")
    detections = devkit.read(f"{workdir}/detections", "test", source.image_ids, shapes.CLASSES)
    sizes = dataset.read(source).sizes
    for of_class in detections.values():
        for image in np.unique(of_class.image):
            own = of_class.boxes[of_class.image == image]
            height, width = sizes[int(image)]
            assert own.min() >= -1e-6
            assert np.all(own[:, 2:] <= [width, height])
            overlap = mean_ap.boxes_lib.iou(own, own)
            np.fill_diagonal(overlap, 0)
            # Corners are written to a thousandth of a pixel.
            assert overlap.max(initial=0) <= config.test.nms_iou + 1e-3
        assert of_class.scores.min() > config.test.min_score


def test_a_trained_detector_is_not_trained_again(trained):
    workdir, config, _ = trained
    before = (pathlib.Path(workdir) / detector.SVM_FILE).stat().st_mtime_ns
    recorder = said.Recorder()
    stages.train(config, workdir, progress=recorder)
    assert "is trained already" in recorder.text
    assert (pathlib.Path(workdir) / detector.SVM_FILE).stat().st_mtime_ns == before
    changed = dataclasses.replace(config, seed=5)
    with pytest.raises(errors.InputError, match=r"another config: config.seed was 0 and is 5"):
        stages.train(changed, workdir)


def test_a_lost_stage_is_made_again_alike(trained):
    workdir, config, _ = trained
    path = pathlib.Path(workdir) / detector.SVM_FILE
    before = detector.load_arrays(str(path))
    path.unlink()
    with pytest.raises(errors.InputError, match="holds no finished detector"):
        detector.load(workdir)
    stages.train(config, workdir)
    after = detector.load_arrays(str(path))
    assert before
    assert after
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(errors.InputError, match=r"svm.npz is damaged"):
        stages.train(config, workdir)
    detector.save_arrays(str(path), **before)


def test_an_interrupted_evaluation_goes_on(trained):
    workdir, config, result = trained
    path = pathlib.Path(workdir) / "detections" / "test.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 7
    # The third image's line was being written.
    path.write_text("".join(lines[:3]) + lines[3][:20])
    assert testing.score_split(workdir, config).result == result
    again = path.read_text().splitlines(keepends=True)
    # Shapes of batches differ, as others are left: scores may round otherwise.
    assert again[:3] == lines[:3]
    assert sorted(json.loads(x)[0] for x in again[1:]) == list(range(6))
    # Other thresholds are another evaluation.
    stricter = dataclasses.replace(config, test=config_lib.TestConfig(min_score=0.5))
    fewer = testing.score_split(workdir, stricter).result
    assert sum(fewer["num_detections"].values()) < sum(result["num_detections"].values())
    assert testing.score_split(workdir, config).result == result


def test_a_damaged_line_of_an_evaluation_is_not_taken(trained):
    workdir, config, result = trained
    path = pathlib.Path(workdir) / "detections" / "test.jsonl"
    assert testing.score_split(workdir, config).result == result
    lines = path.read_text().splitlines(keepends=True)
    index, labels, scores, *rest = json.loads(lines[1])
    lines[1] = json.dumps([index, labels, [s + 1 for s in scores], *rest]) + "\n"
    path.write_text("".join(lines))
    with pytest.warns(errors.InputWarning, match=r"test\.jsonl is damaged from line 2 on"):
        assert testing.score_split(workdir, config).result == result


def test_it_says_where_there_may_be_more(trained, tmp_path):
    workdir, config, result = trained
    assert result["max_detections_reached"] == {"times": 0, "images": 0}
    few = dataclasses.replace(config, test=config_lib.TestConfig(max_detections=1))
    copy = shutil.copytree(workdir, tmp_path / "copy")
    # One of each class in each of six images.
    limited = testing.score_split(str(copy), few)
    assert limited.result["max_detections_reached"] == {"times": 12, "images": 6}
    line = (
        "config.test.max_detections=1 of a class and image was reached 12 times, in 6 of 6 images"
    )
    assert line in "\n".join(limited.notes)
    flags = (f"--workdir={copy}", "--config.test.max_detections=1")
    assert line in commands.output_of("detect.py", "eval", *flags)


def test_classes_may_have_any_name(trained, root, tmp_path):
    workdir, config, result = trained
    names = ("w/o $1_$5", "two\nlines | " + "x" * 300)
    copy, other = tmp_path / "voc", tmp_path / "workdir"
    shutil.copytree(root, copy)
    shutil.copytree(workdir, other)
    for path in copy.glob("VOC2007/Annotations/b*.xml"):
        text = path.read_text()
        for old, new in zip(shapes.CLASSES, names):
            text = text.replace(old, new)
        path.write_text(text)
    facts = detector.read_data(str(other)) | {"class_names": list(names)}
    files.write_checked(str(other / detector.DATA_FILE), facts)
    for name in (detector.SVM_FILE, detector.REGRESSION_FILE):
        arrays = detector.load_arrays(str(other / name)) or {}
        origin = json.loads(str(arrays["origin"])) | {"class_names": list(names)}
        detector.save_arrays(str(other / name), **(arrays | {"origin": json.dumps(origin)}))
    data = dataclasses.replace(config.data, path=str(copy))
    scores = testing.score_split(str(other), dataclasses.replace(config, data=data)).result
    assert scores["ap_area"] == dict(zip(names, result["ap_area"].values()))
    again = testing.score_files(str(copy), f"{other}/detections", split="test")
    assert again["ap_area"] == pytest.approx(scores["ap_area"])
    assert tables.of_detections(scores).splitlines()[3].startswith("| two lines \\| xxx")


def test_without_regression_windows_stay_where_they_are(trained, root):
    workdir, config, _ = trained
    plain = dataclasses.replace(config, regression=config_lib.RegressionConfig(False))
    testing.score_split(workdir, plain)
    source = voc.VocSource(root, "test")
    detections = devkit.read(f"{workdir}/detections", "test", source.image_ids, shapes.CLASSES)
    assert np.all(detections["disc"].boxes == np.round(detections["disc"].boxes))
    testing.score_split(workdir, config)


@pytest.fixture(scope="module")
def second(tmp_path_factory, trained):
    """Another detector of the same classes: objects of the test split are its positives as well."""
    workdir = str(tmp_path_factory.mktemp("second"))
    data = dataclasses.replace(trained[1].data, positives_split="test")
    config = dataclasses.replace(trained[1], data=data)
    stages.train(config, workdir)
    return workdir, config


def test_two_detectors_are_suppressed_together(trained, second, root):
    workdir, config, _ = trained
    before = (pathlib.Path(workdir) / "eval.json").read_bytes()
    both = testing.score_split(workdir, config, [second[0]]).result
    assert both["combined_with"] == [second[0]]
    flags = (f"--workdir={workdir}", f"--with={second[0]}")
    commands.output_of("detect.py", "eval", *flags)
    stored = json.loads((pathlib.Path(workdir) / "eval_combined.json").read_text())
    assert stored == json.loads(json.dumps(both))
    # One's own result stays.
    assert (pathlib.Path(workdir) / "eval.json").read_bytes() == before
    source = voc.VocSource(root, "test")
    read = functools.partial(devkit.read, split="test", image_ids=source.image_ids)
    together = read(f"{workdir}/detections/combined", class_names=shapes.CLASSES)
    testing.score_split(*second)
    parts = [read(f"{w}/detections", class_names=shapes.CLASSES) for w in (workdir, second[0])]
    for name in shapes.CLASSES:
        # The best of the two is the best of both, image by image; each of them has some.
        best = [
            np.asarray([f[name].scores[f[name].image == i].max() for i in range(6)])
            for f in (together, *parts)
        ]
        np.testing.assert_array_equal(best[0], np.maximum(best[1], best[2]))
    scores = {name: set(together[name].scores) for name in shapes.CLASSES}
    own = [{name: set(f[name].scores) for name in shapes.CLASSES} for f in parts]
    assert all(any(scores[n] & (mine[n]) for n in shapes.CLASSES) for mine in own)
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(errors.InputError, match=r"another config: config\.seed was 0 and is 1"):
        testing.score_split(workdir, other)


def _predict(workdir, *paths, output):
    """Returns what the command prints."""
    flags = (f"--workdir={workdir}", f"--output={output}")
    return commands.output_of("detect.py", "predict", *paths, *flags)


def _refused_prediction(workdir, *paths, output):
    """Returns the error of the command."""
    flags = (f"--workdir={workdir}", f"--output={output}")
    return commands.error_of("detect.py", "predict", *paths, *flags)


def test_predictions_are_pictures_and_json(trained, root, tmp_path):
    workdir, config, _ = trained
    folder = pathlib.Path(root) / "VOC2007/JPEGImages"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((folder / "b00.jpg").read_bytes()[:500])
    output = tmp_path / "out"
    paths = [folder / "b00.jpg", folder / "b01.jpg", broken]
    lines = _predict(workdir, *paths, output=output).splitlines()
    (sentence,) = [line for line in lines if line.startswith("refused: ")]
    assert sentence.startswith(f"refused: {broken}")
    report = json.loads((output / "b01.json").read_text())
    assert {d["class"] for d in report["detections"]} == {"disc", "square"}
    scores = [d["score"] for d in report["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > config.test.shown_score
    image = _read_image(folder / "b01.jpg")
    shown = _read_image(output / "b01.png")
    assert (report["height"], report["width"]) == shown.shape[:2] == image.shape[:2]
    assert np.abs(shown.astype(int) - image).max() > 100
    truth = {o.name: o.box for o in voc.read_annotation(f"{root}/VOC2007", "b01").objects}
    best = {d["class"]: d["box"] for d in reversed(report["detections"])}
    for name, box in truth.items():
        overlap = mean_ap.boxes_lib.iou(np.asarray([box]), np.asarray([best[name]]))
        assert overlap[0, 0] > 0.5


def test_predictions_say_what_they_pass_over_and_where_they_end(trained, root, tmp_path):
    workdir, _, _ = trained
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(f"{root}/VOC2007/JPEGImages/b00.jpg", folder)
    (folder / "b01.heic").write_bytes(b"rubbish")
    printed = _predict(workdir, folder, "--config.test.max_detections=1", output=tmp_path / "out")
    assert f"{folder}: passed over 1 file(s) that look like images, b01.heic the first" in printed
    assert "b00.jpg: 2 (of a class at most config.test.max_detections=1) -> " in printed


def test_wrong_predictions_are_refused_before_work(trained, root, tmp_path):
    workdir, _, _ = trained
    one = str(pathlib.Path(root) / "VOC2007/JPEGImages/b00.jpg")
    copy = tmp_path / "b00.jpg"
    copy.write_bytes(pathlib.Path(one).read_bytes())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(copy.read_bytes()[:-200])
    for paths, message in (
        ([], "no image is given"),
        (["/none.jpg"], r"/none\.jpg: no such file or folder"),
        ([one, str(copy)], r"two images would be written as b00\.jpg\.png"),
    ):
        with pytest.raises(errors.InputError, match=message):
            prediction.list_images(paths)
    for paths, output, message in (
        ([one], "", "--output is missing: it is the folder"),
        ([one], copy, f"--output={copy} cannot be written"),
        ([broken], tmp_path / "out", f"none of the images can be read: {broken}"),
    ):
        assert message in _refused_prediction(workdir, *paths, output=output)
    with pytest.raises(errors.InputError, match=r"is no workdir of detect\.py"):
        detector.read_config(str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_wrong_training_is_refused_before_work(root, trained, tmp_path):
    _, config, _ = trained
    workdir = str(tmp_path / "new")
    features = config.features
    for changes, message in (
        ({"checkpoint": ""}, "config.checkpoint is not set"),
        ({"checkpoint": "/none"}, "config.checkpoint=/none: no checkpoint there"),
        ({"features": dataclasses.replace(features, map="conv9")}, "has no such map"),
        ({"data": config_lib.DetectionDataConfig(path=root, split="val")}, "no image set val"),
        (
            {"features": dataclasses.replace(features, scales=(96, 64))},
            r"config.features.scales must be increasing, .*got \(96, 64\)",
        ),
    ):
        with pytest.raises(errors.InputError, match=message):
            stages.train(dataclasses.replace(config, **changes), workdir)
    assert not (tmp_path / "new").exists()


def test_objects_of_a_further_split_are_positives(trained, second):
    both, alone = (
        detector.load_arrays(str(pathlib.Path(w) / detector.SVM_FILE))
        for w in (second[0], trained[0])
    )
    assert both
    assert alone
    assert np.abs(both["weights"] - alone["weights"]).max() > 1e-3
    # Boxes are learnt from the training split alone.
    arrays = [
        detector.load_arrays(str(pathlib.Path(w) / detector.REGRESSION_FILE))
        for w in (second[0], trained[0])
    ]
    assert arrays[0]
    assert arrays[1]
    for name in ("weights", "bias"):
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


def test_an_image_is_never_overwritten(trained, root, tmp_path):
    workdir, _, _ = trained
    image = _read_image(f"{root}/VOC2007/JPEGImages/b00.jpg")
    path = tmp_path / "mine.png"
    cv2.imwrite(str(path), image)
    before = path.read_bytes()
    sentence = _refused_prediction(workdir, path, output=tmp_path)
    assert "mine.png is an image that was given" in sentence
    (tmp_path / "out" / "mine.json").mkdir(parents=True)
    sentence = _refused_prediction(workdir, path, output=tmp_path / "out")
    assert "mine.json is a folder" in sentence
    assert path.read_bytes() == before


def test_an_image_without_windows_has_no_detections(trained, tmp_path):
    workdir, config, _ = trained
    path = tmp_path / "thin.png"
    cv2.imwrite(str(path), np.zeros((3, 90, 3), np.uint8))
    refused = []
    names = prediction.list_images([str(path)])
    (thin,) = prediction.predict(workdir, config, names, refused)
    assert (thin.path, thin.name, thin.size) == (str(path), "thin", (3, 90))
    assert (thin.detections, thin.labels, thin.is_cut, refused) == ([], [], False, [])
    assert "refused" not in _predict(workdir, path, output=tmp_path / "out")
    assert json.loads((tmp_path / "out/thin.json").read_text())["detections"] == []
    assert _read_image(tmp_path / "out/thin.png").shape == (3, 90, 3)


def test_damaged_results_are_refused_or_made_again(trained):
    workdir, config, result = trained
    folder = pathlib.Path(workdir)
    svm = folder / detector.SVM_FILE
    whole = svm.read_bytes()
    arrays = detector.load_arrays(str(svm))
    assert arrays
    try:
        for damage, message in (
            ({"weights": arrays["weights"]}, "or of another network"),
            ({"weights": arrays["weights"][:5], "bias": arrays["bias"]}, "or of another network"),
        ):
            detector.save_arrays(str(svm), **damage)
            with pytest.raises(errors.InputError, match=message):
                testing.score_split(workdir, config)
        np.save(folder / "x.npy", np.zeros(3))
        (folder / "x.npy").rename(svm)
        with pytest.raises(errors.InputError, match=r"svm\.npz is damaged"):
            testing.score_split(workdir, config)
    finally:
        svm.write_bytes(whole)
    lines = (folder / "detections/test.jsonl").read_text().splitlines()
    rest = [x for x in lines[1:] if json.loads(x)[0] != 0]
    for bad in (
        "[99, [], [], []]",
        rest[0],
        "[0, [7], [1.0], [[0, 0, 1, 1]]]",
        "[0, [0], [], []]",
    ):
        (folder / "detections/test.jsonl").write_text("\n".join([lines[0], *rest, bad]) + "\n")
        with pytest.warns(errors.InputWarning, match=r"test\.jsonl is damaged from line 7 on"):
            scores = testing.score_split(workdir, config).result
        assert scores["map_11point"] == result["map_11point"]


def test_what_testing_needs_is_looked_at_before_training(trained, root, tmp_path):
    _, config, _ = trained
    windows = tmp_path / "w.json"
    source = voc.VocSource(root, "trainval")
    windows.write_text(json.dumps({i: [[0, 0, 40, 40]] for i in source.image_ids}))
    files = dataclasses.replace(config.proposals, path=str(windows))
    no_split = dataclasses.replace(config.data, eval_split="nope")
    tune = config_lib.FinetuneConfig(enabled=True, images_per_batch=3, batch_size=9)
    for changes, message in (
        ({"proposals": files}, "has no windows of image b00 and 5 more"),
        ({"data": no_split}, "no image set nope"),
        ({"finetune": tune}, "images_per_batch=3 does not divide evenly among 4"),
    ):
        with pytest.raises(errors.InputError, match=message):
            stages.train(dataclasses.replace(config, **changes), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_presets_are_valid():
    from configs import (
        animals_detection,
        digits_detection,
        ilsvrc_det_pretrain,
        ilsvrc_detection,
        voc07_detection,
    )
    from spp_jax import config as config_lib

    for preset in (animals_detection, digits_detection, ilsvrc_detection, voc07_detection):
        config_lib.validate(preset.get_config())
    config_lib.validate(ilsvrc_det_pretrain.get_config())
    five, released = map(voc07_detection.get_config, ("5scale", "released"))
    config_lib.validate(released)
    # Where paper and code differ, the paper's is the default.
    assert (five.features.scales, five.features.scale_rule) == ((480, 576, 688, 864, 1200), "area")
    assert (five.finetune.learning_rate, five.finetune.drop_steps) == (1e-4, (250_000,))
    assert (released.features.scales[3], released.features.scale_rule) == (874, "linear")
    assert (released.finetune.learning_rate, released.finetune.num_steps) == (1e-3, 200_000)
    with pytest.raises(errors.InputError, match="'6scale' after the colon is none of 1scale"):
        voc07_detection.get_config("6scale")
