"""The commands that the campaigns stop, starve and begin again, each on its part of the stage."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable

import jax
import numpy as np

from spp_jax import checkpoint, errors, sharding
from spp_jax.data.sources import opening
from tests.faults.broken import Broken
from tests.faults.stage import Stage


@dataclasses.dataclass(frozen=True)
class Work:
    """A command, and how its result is told from another.

    Attributes:
        name: of the work.
        command: returns the command that works in a folder of its own.
        digest: returns what must be equal, of the folder.
        begin: puts into the folder what must lie there before.
        after: the works whose results it takes, but training.
        workers_flag: makes it use loader processes, where it can.
        once: whether it is refused where its result lies already.
    """

    name: str
    command: Callable[[Stage, pathlib.Path], list[str]]
    digest: Callable[[pathlib.Path], str]
    begin: Callable[[Stage, pathlib.Path], None] = lambda stage, folder: None
    after: tuple[str, ...] = ()
    workers_flag: str = ""
    once: bool = False

    def unbroken(self, stage: Stage) -> str:
        """Returns the digest of the result of a run that nothing disturbed."""
        return (stage.root / "unbroken" / f"{self.name}.txt").read_text()

    def unbroken_seconds(self, stage: Stage) -> float:
        """Returns how long that run took."""
        return float((stage.root / "unbroken" / f"{self.name}.seconds").read_text())

    def unbroken_bytes(self, stage: Stage) -> int:
        """Returns how many bytes that run left."""
        folder = stage.root / "unbroken" / self.name
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def is_made(self, stage: Stage) -> bool:
        """Returns whether there has been one."""
        return (stage.root / "unbroken" / f"{self.name}.txt").exists()

    def make_unbroken(self, stage: Stage, run: Callable[[list[str], pathlib.Path], object]) -> None:
        """Runs the command without a break and notes the digest of its result."""
        folder = stage.root / "unbroken"
        target = folder / self.name
        folder.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        self.begin(stage, target)
        start = time.monotonic()
        run(self.command(stage, target), stage.root / "stage.log")
        (folder / f"{self.name}.seconds").write_text(str(time.monotonic() - start))
        (folder / f"{self.name}.txt").write_text(self.digest(target))


def state(step_dir: str | pathlib.Path) -> str:
    """Returns the SHA-256 of a checkpoint's parameters, and of its momentum."""
    layout = sharding.replicated(sharding.make_mesh())
    params, optimizer = (
        checkpoint.stored_spec(str(step_dir), name, layout) for name in ("params", "optimizer")
    )
    digest = {"params": hashlib.sha256(), "optimizer": hashlib.sha256()}
    stored = checkpoint.restore(str(step_dir), params=params, optimizer=optimizer)
    for name, tree in stored.items():
        for leaf in jax.tree.leaves(tree):
            if np.ndim(leaf):  # not the count of steps
                digest[name].update(np.asarray(leaf).tobytes())
    return " ".join(d.hexdigest() for d in digest.values())


def parameters(workdir: pathlib.Path) -> str:
    """Returns the newest step of a workdir, its state, and SHA-256 of the batches before it."""
    step_dir = checkpoint.latest_step_dir(str(workdir))
    if step_dir is None:
        raise Broken("lost", f"no checkpoint in {workdir}")
    steps = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    batches = hashlib.sha256(repr([line.get("batch_hash") for line in steps]).encode())
    step = checkpoint.read_meta(step_dir).step
    return f"step {step} {state(step_dir)} {batches.hexdigest()}"


def files(*patterns: str) -> Callable[[pathlib.Path], str]:
    """Returns what gives the SHA-256 of each file of a folder that matches a pattern."""

    def digest(folder: pathlib.Path) -> str:
        paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        if not paths:
            raise Broken("lost", f"no {' or '.join(patterns)} in {folder}")
        return "\n".join(
            f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            for path in paths
            if path.is_file()
        )

    return digest


def examples(folder: pathlib.Path) -> str:
    """Returns the SHA-256 of a prepared set's examples; their fields have no order in its files."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        try:
            source = opening.TfdsSource("imagenet2012_256", split, str(folder))
        except errors.InputError as e:
            raise Broken("lost", str(e)) from e
        for index in range(len(source)):
            digest.update(repr((source[index].label, len(source[index].data))).encode())
            digest.update(source[index].data)
    return digest.hexdigest()


def result(name: str) -> Callable[[pathlib.Path], str]:
    """Returns what gives a JSON of a folder but for its times."""

    def digest(folder: pathlib.Path) -> str:
        stored = json.loads((folder / name).read_text())
        # Loader processes are part of the config, and times of no result.
        stored = {k: v for k, v in stored.items() if k != "config" and "seconds" not in k}
        return json.dumps(stored, sort_keys=True)

    return digest


def _score_svms(stage: Stage, folder: pathlib.Path) -> list[str]:
    data, scales = f"--config.data.path={stage.pictures / 'train'}", "--config.scales=36,"
    few = ["--config.data.num_train=8", "--config.data.num_splits=2", "--config.num_programs=1"]
    start = ["eval.py", "--protocol=svm", "--config=configs/caltech101_svm.py"]
    where = [f"--checkpoint={stage.trained}", f"--workdir={folder}"]
    return [*start, *where, data, scales, "--config.main_scale=36", *few]


def _import(stage: Stage, folder: pathlib.Path) -> list[str]:
    where = [f"--weights={stage.weights}", f"--classes={stage.class_names}", f"--output={folder}"]
    return ["-m", "spp_jax.interop", "--backbone=squeezenet1_1", *where]


def _prepare(stage: Stage, folder: pathlib.Path) -> list[str]:
    where = [f"--manual_dir={stage.tars}", f"--data_dir={folder}"]
    return ["-m", "spp_jax.data.prepare", "imagenet2012_256", "--num_workers=1", *where]


def _crop(stage: Stage, folder: pathlib.Path) -> list[str]:
    where = [f"--data={stage.voc}", f"--output={folder / 'crops'}"]
    return ["-m", "spp_jax.data.object_crops", "--split=trainval", *where]


TRAINING = Work(
    "training",
    lambda stage, folder: stage.train(folder),
    parameters,
    workers_flag="--config.data.num_workers=2",
)
EXTRACTION = Work(
    "extraction",
    lambda stage, folder: stage.extract(folder / "x.npy"),
    files("x.*"),
    workers_flag="--num_workers=2",
)
DETECTION = Work(
    "detection",
    lambda stage, folder: stage.detect(folder),
    files("*.npz", "detections*/*.txt", "*/comp4*.txt"),
)
ALL = (
    TRAINING,
    Work(
        "evaluation",
        lambda stage, folder: ["eval.py", f"--workdir={folder}", "--protocol=full,center"],
        result("eval_full.json"),
        lambda stage, folder: stage.copy(stage.trained, folder),
        workers_flag="--config.data.num_workers=2",
    ),
    Work("svm", _score_svms, result("eval_svm.json"), workers_flag="--config.data.num_workers=2"),
    EXTRACTION,
    DETECTION,
    Work(
        "detection-evaluation",
        lambda stage, folder: ["detect.py", "eval", f"--workdir={folder}"],
        result("eval.json"),
        lambda stage, folder: stage.copy(stage.detector, folder),
        after=("detection",),
    ),
    Work(
        "prediction",
        lambda stage, folder: [
            *("detect.py", "predict", f"--workdir={stage.detector}"),
            *(f"--output={folder / 'boxes'}", str(stage.voc / "VOC2007" / "JPEGImages")),
        ],
        files("boxes/*"),
        after=("detection",),
    ),
    Work(
        "import",
        _import,
        lambda folder: str(checkpoint.checksum(checkpoint.load(folder)[1])),
        once=True,
    ),
    Work("preparation", _prepare, examples),
    Work("crops", _crop, files("crops/**/*.jpg"), once=True),
)
