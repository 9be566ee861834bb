"""Counts what a compiled GPU program does: bytes it moves, operations, calls, copies, collectives.

The bytes are those of results and operands of every instruction that runs as a kernel or a call of
a library: what goes through the device's memory if no cache holds it and no kernel reads twice.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu import hlo

# Instructions that only name what others made.
_FREE = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"),
    *("partition-id", "replica-id", "opt-barrier"),
}
_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"),
    "collective-broadcast",
)
# Computations of these instructions run as instructions of their own, not inside a kernel.
_CONTAINERS = {"call", "while", "conditional", "async-start"}
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_CONTRACTED = re.compile(r'"?lhs_contracting_dimensions"?[:=][\[{]([^\]}]*)[\]}]')
# Smaller arrays are parameters of layers and sums; no map of a batch is.
_LARGE = 2**20


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction that runs `times` times, and the bytes that it reads and writes each time."""

    instruction: hlo.Instruction
    times: int
    read: int
    written: int

    @property
    def bytes(self) -> int:
        return self.times * (self.read + self.written)


def count(program: hlo.Program) -> dict[str, Any]:
    """Returns the counts of a program, as JSON has them.

    Returns:
        bytes: moved through the device's memory.
        operations: of convolutions and matrix products; a multiplication and an addition are two.
        fusions, library_calls: kernels that XLA writes, and calls of cuDNN and cuBLAS.
        copies, copied_bytes: copies and transposes of arrays of a megabyte or more, and all bytes
            they read and write.
        scatters: scatters and select-and-scatters; sorts: what deterministic scatters become.
        float32_maps, float32_map_bytes, largest_float32_map: float32 arrays of four axes, a
            megabyte or more each, that are written: their count, bytes, and the largest one's.
        collectives: one entry per collective: kind, dtype, bytes.
        unknown_loops: loops whose count of runs the program does not say; counted as one.
        largest: the ten instructions that move most: name, opcode, bytes, result, source.
    """
    steps = list(_steps(program, program.entry, 1))
    by_opcode = Counter(i.opcode for i in program.all())
    copies = [s for s in steps if _is_copy(s.instruction)]
    maps = [
        (array, s.times)
        for s in steps
        for array in s.instruction.arrays
        if array.dtype == "f32" and len(array.shape) == 4 and array.bytes >= _LARGE
    ]
    largest = sorted(steps, key=lambda s: -s.bytes)[:10]
    return {
        "bytes": sum(s.bytes for s in steps),
        "operations": _operations(program, steps),
        "fusions": sum(s.instruction.opcode == "fusion" for s in steps),
        "library_calls": sum(bool(_library(s.instruction)) for s in steps),
        "copies": len(copies),
        "copied_bytes": sum(s.bytes for s in copies),
        "scatters": by_opcode["scatter"] + by_opcode["select-and-scatter"],
        "sorts": by_opcode["sort"] + sum("Sort" in s.instruction.target for s in steps),
        "float32_maps": len(maps),
        "float32_map_bytes": sum(array.bytes * times for array, times in maps),
        "largest_float32_map": max((array.bytes for array, _ in maps), default=0),
        "collectives": [_collective(s) for s in steps if _is_collective(s.instruction)],
        "unknown_loops": sum(
            i.opcode == "while" and "known_trip_count" not in i.attributes for i in program.all()
        ),
        "largest": [_describe(program, s) for s in largest],
    }


def add(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the counts of several programs as those of one."""
    total: dict[str, Any] = {}
    for name in counts[0]:
        values = [entry[name] for entry in counts]
        if name in ("collectives", "largest"):
            total[name] = [item for value in values for item in value]
        elif name == "largest_float32_map":
            total[name] = max(values)
        else:
            total[name] = sum(values)
    total["largest"] = sorted(total["largest"], key=lambda entry: -entry["bytes"])[:10]
    return total


def _steps(program: hlo.Program, computation: str, times: int) -> Iterator[Step]:
    """Yields what runs, in order; branches of a condition all of them, as if each ran."""
    results = {i.name: i for i in program.computations[computation]}
    for instruction in results.values():
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            continue
        if opcode in _CONTAINERS:
            for called in instruction.calls:
                yield from _steps(program, called, times * instruction.trip_count)
            continue
        operands = [results[name] for name in instruction.operands if name in results]
        read = sum(operand.bytes for operand in operands)
        # The result of a copy or a collective that is only started may hold its operands as well.
        is_start = opcode.endswith("-start") and len(instruction.arrays) > len(operands)
        written = instruction.bytes - read * is_start
        yield Step(instruction, times, read, written)


def _library(instruction: hlo.Instruction) -> str:
    target = instruction.target
    return target if target.startswith("__cu") else ""


def _is_copy(instruction: hlo.Instruction) -> bool:
    kind = instruction.opcode
    if kind == "fusion":
        named = instruction.name.split(".")[0].removesuffix("_fusion")
        kind = named.removeprefix("input_").removeprefix("loop_").removeprefix("wrapped_")
    return kind in ("copy", "copy-start", "transpose") and instruction.bytes >= _LARGE


def _is_collective(instruction: hlo.Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in _COLLECTIVES


def _collective(step: Step) -> dict[str, Any]:
    return {
        "kind": step.instruction.opcode.removesuffix("-start"),
        "dtype": "+".join(sorted({array.dtype for array in step.instruction.arrays})),
        "bytes": step.written * step.times,
    }


def _operations(program: hlo.Program, steps: list[Step]) -> int:
    """Returns the operations of library calls, and of products in kernels that XLA writes."""
    total = 0
    times = {s.instruction.name: s.times for s in steps}
    for computation, instructions in program.computations.items():
        results = {i.name: i for i in instructions}
        for instruction in instructions:
            is_product = instruction.opcode in ("dot", "convolution")
            if not is_product and not _library(instruction):
                continue
            operands = [results[name].arrays for name in instruction.operands if name in results]
            runs = times.get(instruction.name, _runs_of(program, steps, computation))
            total += runs * _product(instruction, [arrays[0] for arrays in operands if arrays])
    return total


def _runs_of(program: hlo.Program, steps: list[Step], computation: str) -> int:
    """Returns how often the instructions that call a computation run."""
    return sum(s.times for s in steps if computation in s.instruction.calls)


def _product(instruction: hlo.Instruction, operands: list[hlo.Array]) -> int:
    if len(operands) < 2:
        return 0
    result = instruction.arrays[0]
    labels = _LABELS.search(instruction.attributes)
    if labels:
        # A convolution and its gradients multiply the same pairs: each output with its window.
        target = instruction.target
        kernel = result if target.endswith("BackwardFilter") else operands[1]
        output = result
        if target.endswith(("BackwardFilter", "BackwardInput")):
            output = operands[1] if target.endswith("Filter") else operands[0]
        features = kernel.shape[labels[2].index("o")]
        return 2 * math.prod(output.shape) * math.prod(kernel.shape) // features
    contracted = _CONTRACTED.search(instruction.attributes)
    if not contracted:
        return 0
    axes = [int(axis.strip(' "')) for axis in contracted[1].split(",") if axis.strip()]
    return 2 * math.prod(result.shape) * math.prod(operands[0].shape[axis] for axis in axes)


def _describe(program: hlo.Program, step: Step) -> dict[str, Any]:
    instruction = step.instruction
    return {
        "name": instruction.name,
        "opcode": _library(instruction) or instruction.opcode,
        "bytes": step.bytes,
        "result": [f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in instruction.arrays][:4],
        "source": program.source(instruction),
    }
