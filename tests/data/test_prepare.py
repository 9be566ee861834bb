"""ImageNet from small tars of the official layout, and what the command says when it cannot."""

import concurrent.futures
import importlib.util
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from spp_jax import errors
from spp_jax.data import images, stock
from spp_jax.data.imagenet import preparing, tars
from spp_jax.data.sources import opening
from spp_jax.runs import progress, signals
from tests.support import archives

# With the one official image that is a PNG, and one of the CMYK ones.
TRAIN = {
    "n01440764": ["n01440764_1.JPEG", "n01440764_2.JPEG", "n01440764_3.JPEG", "n01440764_4.JPEG"],
    "n01739381": ["n01739381_1309.JPEG", "n01739381_5.JPEG", "n01739381_6.JPEG"],
    "n02105855": ["n02105855_2933.JPEG", "n02105855_1.JPEG", "n02105855_2.JPEG"],
}
SMALL, DAMAGED = "n01440764_2.JPEG", "n02105855_2.JPEG"
# The official classes of the first five validation images.
VALIDATION = (65, 970, 230, 809, 516)


def _picture(seed, height, width, kind="JPEG", mode="RGB"):
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _train_files():
    files = {}
    for seed, name in enumerate(name for names in TRAIN.values() for name in names):
        files[name] = _picture(seed, 300 + 20 * seed, 420)
    files[SMALL] = _picture(50, 120, 200)
    files["n02105855_2933.JPEG"] = _picture(51, 400, 333, kind="PNG")
    files["n01739381_1309.JPEG"] = _picture(52, 333, 400, mode="CMYK")
    files["n01739381_5.JPEG"] = _picture(53, 300, 300, mode="L")
    files[DAMAGED] = files[DAMAGED][:3000]
    return files


def _write_tars(path, train, validation):
    path.mkdir(exist_ok=True)
    (path / "ILSVRC2012_img_train.tar").write_bytes(archives.tar(train))
    (path / "ILSVRC2012_img_val.tar").write_bytes(archives.tar(validation))
    return str(path)


@pytest.fixture(scope="module", name="tar_folder")
def _tar_folder(tmp_path_factory):
    files = _train_files()
    train = {
        f"{wnid}.tar": archives.tar({n: files[n] for n in TRAIN[wnid]}) for wnid in reversed(TRAIN)
    }
    numbers = (4, 2, 5, 1, 3)  # a tar need not be sorted
    validation = {f"ILSVRC2012_val_{n:08}.JPEG": _picture(70 + n, 280, 256 + n) for n in numbers}
    return _write_tars(tmp_path_factory.mktemp("imagenet") / "tars", train, validation)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "IMAGES_PER_SHARD", 4)


def _read(data_dir):
    """Returns {split: [(file name, label, bytes)]}."""
    builder: Any = tfds.builder("imagenet2012_256", data_dir=data_dir)
    contents = {}
    for split in ("train", "validation"):
        skip = {"image": tfds.decode.SkipDecoding()}
        examples = builder.as_data_source(split, decoders=skip)
        contents[split] = [(e["file_name"].decode(), int(e["label"]), e["image"]) for e in examples]
    return contents


@pytest.fixture(scope="module")
def prepared(tar_folder, tmp_path_factory):
    """The data_dir of a set in one go, and what was left out."""
    data_dir = str(tmp_path_factory.mktemp("one_worker"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "IMAGES_PER_SHARD", 4)
        refused = preparing.prepare(tar_folder, data_dir, num_workers=1)
    return data_dir, refused


def test_classes_labels_and_names_are_those_of_tfds(prepared, tmp_path):
    data_dir, _ = prepared
    builder = tfds.builder("imagenet2012_256", data_dir=data_dir)
    stock = tfds.builder("imagenet2012", data_dir=str(tmp_path))
    features: Any = builder.info.features
    stock_features: Any = stock.info.features
    assert features["label"].names == stock_features["label"].names
    assert {k: type(f) for k, f in features.items()} == {
        k: type(f) for k, f in stock_features.items()
    }
    assert builder.info.supervised_keys == stock.info.supervised_keys

    contents = _read(data_dir)
    names = {name for names in TRAIN.values() for name in names} - {DAMAGED}
    assert sorted(name for name, _, _ in contents["train"]) == sorted(names)
    classes = features["label"].names
    assert all(name.startswith(classes[label]) for name, label, _ in contents["train"])
    assert {name: label for name, label, _ in contents["validation"]} == {
        f"ILSVRC2012_val_{n:08}.JPEG": label for n, label in enumerate(VALIDATION, 1)
    }


def test_the_lists_tfds_ships_are_there():
    assert len(tars.load_wnids()) == 1000
    assert tars.load_wnids() == sorted(tars.load_wnids())
    lines = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    assert len(lines) == 50_000


def test_images_are_rgb_with_shorter_side_256_and_small_ones_keep_their_size(prepared):
    files = _train_files()
    for name, _, data in _read(prepared[0])["train"]:
        assert data.startswith(b"\xff\xd8\xff")
        image = images.decode(data, name)
        original = images.decode(files[name], name)
        if name == SMALL:
            assert image.shape == (120, 200, 3)
        else:
            assert min(image.shape[:2]) == 256
            longer = 256 * max(original.shape) / min(original.shape[:2])
            # A pixel: JPEGs are decoded at a smaller scale first, whose sides are rounded too.
            assert abs(max(image.shape) - longer) <= 1
        expected = images.resize(original, *image.shape[:2])
        error = np.abs(image.astype(int) - expected).mean()
        assert error < 1.5, name  # levels; quality 92 loses 1 on smooth images


def test_a_damaged_image_is_named_and_left_out(prepared):
    data_dir, refused = prepared
    assert len(refused) == 1
    assert refused[0].startswith(f"{DAMAGED}: cannot be decoded as JPEG (")
    info: Any = tfds.builder("imagenet2012_256", data_dir=data_dir).info
    assert info.metadata["refused"] == refused
    assert info.splits["train"].num_examples == 9


def test_our_sources_read_it(prepared):
    source = opening.open_train("imagenet2012_256", prepared[0], "train", 0.1, 0)
    assert len(source) == 9
    assert len(source.class_names) == 1000
    held_out = opening.open_held_out(
        "imagenet2012_256", prepared[0], "", 0.1, 0, source.class_names
    )
    assert held_out is not None
    assert (held_out.split, len(held_out)) == ("validation", 5)


def test_two_workers_and_an_interruption_change_nothing(
    prepared, tar_folder, tmp_path, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write_metadata", interrupt)
        with pytest.raises(KeyboardInterrupt):
            preparing.prepare(tar_folder, str(tmp_path), num_workers=2)
    work = tmp_path / "imagenet2012_256" / "1.0.0.incomplete"
    shards = sorted(work.glob("*.array_record*"))
    assert [shard.name for shard in shards] == [
        *[f"imagenet2012_256-train.array_record-0000{i}-of-00003" for i in range(3)],
        *[f"imagenet2012_256-validation.array_record-0000{i}-of-00002" for i in range(2)],
    ]

    # Half prepared is not prepared.
    with pytest.raises(tfds.core.DatasetNotFoundError):
        tfds.builder("imagenet2012_256", data_dir=str(tmp_path))
    with pytest.raises(errors.InputError, match="imagenet2012_256"):
        opening.load_builder("imagenet2012_256", str(tmp_path))

    # One shard was not finished, one is damaged: the others are not written again.
    times = {shard.name: shard.stat().st_mtime_ns for shard in shards}
    shards[1].unlink()
    os.truncate(shards[3], 1000)
    assert preparing.prepare(tar_folder, str(tmp_path), num_workers=2) == prepared[1]
    final = tmp_path / "imagenet2012_256" / "1.0.0"
    new = {path.name: path.stat().st_mtime_ns for path in final.glob("*.array_record*")}
    assert {name for name in times if new[name] == times[name]} == {
        shards[i].name for i in (0, 2, 4)
    }
    assert _read(str(tmp_path)) == _read(prepared[0])
    assert not (final / "progress").exists()
    assert not work.exists()

    # And now there is nothing to do.
    assert preparing.prepare("nowhere", str(tmp_path), num_workers=1) == []
    process = _start("imagenet2012_256", "--manual_dir=nowhere", f"--data_dir={tmp_path}")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out == f"imagenet2012_256 is prepared already under {final}\n"


def test_shards_of_other_settings_or_tars_are_not_mixed_in(tar_folder, tmp_path, monkeypatch):
    work = tmp_path / "imagenet2012_256" / "1.0.0.incomplete"
    (work / "progress").mkdir(parents=True)
    paths = tars.find_tars(tar_folder)
    preparing._check_settings(str(work), dict.fromkeys(paths, __file__))
    preparing._check_settings(str(work), paths)  # nothing was made from the others
    (work / "progress" / "train-00000.json").write_text("{}")
    preparing._check_settings(str(work), paths)
    monkeypatch.setattr(preparing, "QUALITY", 80)
    with pytest.raises(errors.InputError, match=r"\(quality was 92, now 80\); remove it"):
        preparing.prepare(tar_folder, str(tmp_path), num_workers=1)


def test_every_shard_has_its_share_of_every_class(tmp_path):
    classes = {w: [f"{w}_{i}.JPEG" for i in range(n)] for w, n in zip(TRAIN, (8, 16, 4))}
    train = {f"{w}.tar": archives.tar(dict.fromkeys(names, b"x")) for w, names in classes.items()}
    folder = _write_tars(tmp_path, train, {})
    path = tars.find_tars(folder)["train"]
    link, stop = preparing._Link(multiprocessing.RawValue("b", 0), None), signals.Stop()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        by = preparing._Work(link, pool, stop, progress.SILENT)
        shards = preparing._plan("train", path, "", by)
        stop.signal = signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            preparing._plan("train", path, "", by)
    assert len(shards) == 7
    items = [item for shard in shards for item in shard.items]
    assert sorted(item.name for item in items) == sorted(n for c in classes.values() for n in c)
    # Half of the images are half of each class.
    first = [item.name[:9] for item in items[:14]]
    assert [first.count(wnid) for wnid in TRAIN] == [4, 8, 2]
    with open(path, "rb") as f:
        for item in items:
            f.seek(item.offset)
            assert f.read(item.size) == b"x"


def test_wrong_tars_are_named(tmp_path):
    def read(paths):
        for class_tar in tars.list_class_tars(paths["train"]):
            tars.list_class(paths["train"], class_tar)
        tars.list_validation(paths["validation"])

    def message(train, validation=b""):
        path = _write_tars(tmp_path / "tars", {}, {})
        for name, data in (("train", train), ("val", validation)):
            with open(os.path.join(path, f"ILSVRC2012_img_{name}.tar"), "wb") as f:
                f.write(data)
        with pytest.raises(errors.InputError) as info:
            read(tars.find_tars(path))
        return str(info.value).replace(path, "")

    train = "/ILSVRC2012_img_train.tar"
    class_tar = archives.tar({"a.JPEG": b"x" * 5000, "b.JPEG": b"x" * 5000})
    good = archives.tar({"n01440764.tar": class_tar})
    assert message(b"no tar" * 200).startswith(f"{train} is damaged or no tar (")
    assert message(archives.tar({})) == f"{train} holds no class tars"
    assert message(archives.tar({"n00000001.tar": b""})) == (
        f"{train} holds 'n00000001.tar', which is not the tar of one of the 1000 classes"
    )
    assert message(good[:9000]) == f"{train} is damaged or no tar (unexpected end of data)"
    cut = {"n01440764.tar": class_tar[:8192]}
    assert message(archives.tar(cut)) == (
        f"{train}: n01440764.tar in it is damaged or no tar (unexpected end of data)"
    )
    cut["n01443537.tar"] = class_tar
    assert message(archives.tar(cut)).startswith(f"{train}: n01440764.tar in it is damaged")
    for name in ("cat.JPEG", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00050001.JPEG"):
        assert message(good, archives.tar({name: b"x"})) == (
            f"/ILSVRC2012_img_val.tar holds {name!r}, which is none of "
            "ILSVRC2012_val_00000001.JPEG to 00050000"
        )


def test_preparing_says_what_is_wrong(tmp_path, monkeypatch):
    data_dir = str(tmp_path / "data")

    def message(name, manual_dir):
        with pytest.raises(errors.InputError) as info:
            stock.prepare(name, manual_dir, data_dir)
        return str(info.value)

    tar = tmp_path / "ILSVRC2012_img_train.tar"
    needed = f"no file {tar}; that folder must hold ILSVRC2012_img_train.tar and"
    with pytest.raises(errors.InputError) as info:
        preparing.prepare(str(tmp_path), data_dir, num_workers=1)
    assert str(info.value).startswith(needed)
    unknown = "'no_such' is neither imagenet2012_256, digit_scenes nor a set TFDS knows"
    assert message("no_such", "") == unknown

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "`pip install -r requirements-prepare.txt`" in message("mnist", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "installed")
    assert message("imagenet2012", "").startswith(
        "imagenet2012 needs a manual_dir; TFDS says: manual_dir should contain two files"
    )
    assert message("imagenet2012", str(tmp_path)).startswith(needed)
    assert not (tmp_path / "data").exists()


def _start(*arguments):
    command = [sys.executable, "-u", "-m", "spp_jax.data.prepare", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_the_command_ends_in_one_line(tmp_path):
    process = _start("imagenet2012_256", "--manual_dir=nowhere", f"--data_dir={tmp_path}")
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.startswith("error: no file nowhere/ILSVRC2012_img_train.tar; ")
    assert err.count("\n") == 1


def test_ctrl_c_ends_the_command_and_says_how_to_go_on(tmp_path):
    data = _picture(0, 1000, 1000)
    names = [f"n01440764_{i}.JPEG" for i in range(2000)]  # many seconds of work
    train = {"n01440764.tar": archives.tar(dict.fromkeys(names, data))}
    folder = _write_tars(tmp_path / "tars", train, {"ILSVRC2012_val_00000001.JPEG": data})
    process = _start(
        "imagenet2012_256", f"--manual_dir={folder}", f"--data_dir={tmp_path}", "--num_workers=1"
    )
    assert process.stdout is not None
    process.stdout.readline()  # how many images there are: the worker is at it
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "stopped; the same command goes on from there\n"
    assert not (tmp_path / "imagenet2012_256" / "1.0.0").exists()
