"""Reads the text of an optimised XLA program: its instructions, and the source lines they come of.

Text is what the compiler gives away on all its platforms; the binary form needs its own schema.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {
    **{"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16},
    **{"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128},
}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_DEFINITION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = ")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_SCHEDULED = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_NUMBERED = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')


class Array(NamedTuple):
    """An array of an instruction's result."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a computation.

    Attributes:
        name: unique in the program.
        opcode: such as fusion, custom-call or all-reduce-start.
        arrays: of its result.
        operands: names of the instructions it reads, in order.
        calls: names of the computations it runs.
        attributes: the rest of its text.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    calls: tuple[str, ...]
    attributes: str

    @property
    def bytes(self) -> int:
        """Of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def target(self) -> str:
        """The library function of a custom call; "" for every other instruction."""
        target = _TARGET.search(self.attributes)
        return target[1] if target else ""

    @property
    def trip_count(self) -> int:
        """How often a loop runs its body; 1 where the program does not say."""
        count = _SCHEDULED.search(self.attributes)
        return int(count[1]) if count else 1


@dataclasses.dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        computations: the instructions of each computation, in order.
        entry: name of the computation that runs first.
        sources: "file:line" of each stack frame, of the innermost of its frames in the package.
    """

    computations: dict[str, list[Instruction]]
    entry: str
    sources: dict[int, str]

    def source(self, instruction: Instruction) -> str:
        """Returns the line of the package an instruction was made for; "" where none is known."""
        frame = _FRAME.search(instruction.attributes)
        return self.sources.get(int(frame[1]), "") if frame else ""

    def all(self) -> Iterator[Instruction]:
        """Yields the instructions of all computations, those inside fusions included."""
        for instructions in self.computations.values():
            yield from instructions


def parse(text: str, package: str = "spp_jax") -> Program:
    """Reads a program as `jax.stages.Compiled.as_text` prints it.

    Args:
        text: of the program.
        package: the folder whose files `Program.sources` names.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        opening = _COMPUTATION.match(line)
        if opening:
            current = computations.setdefault(opening[2], [])
            entry = opening[2] if opening[1] else entry
        elif line == "}":
            current = None
        elif current is not None and _DEFINITION.match(line):
            current.append(_instruction(line))
    if not entry:
        raise ValueError("the text is no program of XLA: it has no ENTRY computation")
    return Program(computations, entry, _sources(text, package))


def _instruction(line: str) -> Instruction:
    definition = _DEFINITION.match(line)
    assert definition
    shape, rest = _split(line[definition.end() :])
    opcode, _, rest = rest.partition("(")
    operands, attributes = _split("(" + rest)
    called = _CALLED.findall(attributes)
    for branches in _BRANCHES.findall(attributes):
        called += _NAME.findall(branches)
    arrays = tuple(
        Array(dtype, tuple(int(n) for n in sides.split(",") if n))
        for dtype, sides in _ARRAY.findall(shape)
    )
    return Instruction(
        definition[1],
        opcode.strip(),
        arrays,
        tuple(_NAME.findall(operands)),
        tuple(called),
        attributes,
    )


def _split(text: str) -> tuple[str, str]:
    """Returns a leading word or a group in parentheses, and the rest."""
    if not text.startswith("("):
        word, _, rest = text.partition(" ")
        return word, rest
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :].lstrip(" ,")
    return text, ""


def _sources(text: str, package: str) -> dict[int, str]:
    tables: dict[str, dict[int, str]] = {}
    table: dict[int, str] = {}
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
            continue
        entry = _NUMBERED.match(line)
        if entry:
            table[int(entry[1])] = entry[2] or entry[3]
        elif line.startswith(("%", "ENTRY")):
            break
    names = tables.get("FileNames", {})
    frames = {n: _fields(body) for n, body in tables.get("StackFrames", {}).items()}
    places = {n: _fields(body) for n, body in tables.get("FileLocations", {}).items()}
    sources = {}
    for number in frames:
        frame, seen = number, set()
        while frame in frames and frame not in seen:
            seen.add(frame)
            place = places.get(frames[frame].get("file_location_id", 0), {})
            name = names.get(place.get("file_name_id", 0), "")
            _, folder, path = name.rpartition(f"/{package}/")
            if folder:
                sources[number] = f"{package}/{path}:{place.get('line', 0)}"
                break
            frame = frames[frame].get("parent_frame_id", 0)
    return sources


def _fields(body: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", body)}
