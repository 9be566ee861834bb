"""What a run says: console lines, metrics.jsonl and TensorBoard."""

import json
import os
from typing import Any

import jax
import tensorboardX

from spp_jax.training import programs as programs_lib

METRICS_FILE = "metrics.jsonl"


class Report:
    """Writes to the console, to metrics.jsonl and to TensorBoard events in a workdir.

    A resumed run drops the lines after its checkpoint: it is about to write the same ones again.
    """

    def __init__(self, workdir: str, resume_step: int):
        path = os.path.join(workdir, METRICS_FILE)
        _keep_lines_until(path, resume_step)
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed below)
        self._events = tensorboardX.SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=resume_step or None
        )

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def write(self, values: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl; `values` has a "step". Numbers go to TensorBoard."""
        self._file.write(json.dumps(values) + "\n")
        prefix = f"eval_{values['protocol']}" if "protocol" in values else "train"
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self._events.add_scalar(f"{prefix}/{name}", value, values["step"])

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._events.close()


def _keep_lines_until(path: str, step: int) -> None:
    if not os.path.exists(path):
        return
    kept = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a run that was killed
            if values["step"] <= step:
                kept.append(line)
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.writelines(kept)
    os.replace(path + ".new", path)


def parameter_table(params: dict) -> str:
    """Returns a line for each parameter, its shape and its count, and the total."""
    rows = []
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rows.append(f"  {name:28} {'x'.join(map(str, x.shape)):>16} {x.size:>12,}")
    total = sum(x.size for x in jax.tree.leaves(params))
    return "\n".join([*rows, f"  {'parameters':28} {'':>16} {total:>12,}"])


def program_line(program: programs_lib.Program, batch_size: int) -> str:
    """Returns "224 px: compiled in 8.1 s, 3.40 GFLOP/image, 1.9 GB"."""
    text = f"{program.size} px: compiled in {program.seconds:.1f} s"
    if program.flops:
        text += f", {program.flops / batch_size / 1e9:.3g} GFLOP/image"
    if program.bytes:
        text += f", {program.bytes / 1e9:.2g} GB"
    return text


def step_line(values: dict[str, Any], num_steps: int, seconds_left: float) -> str:
    """Returns the console line of an interval; `values` as written to metrics.jsonl."""
    minutes, seconds = divmod(round(seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
    step = values["step"]
    return (
        f"step {step}/{num_steps} {100 * step // num_steps}% | size {values['size']} | "
        f"loss {values['loss']:.3f} | top1 {values['top1']:.3f} | "
        f"lr {values['learning_rate']:.2g} | {values['images_per_second']:.0f} img/s | "
        f"data {100 * values['data_share']:.0f}% | eta {eta}"
    )
