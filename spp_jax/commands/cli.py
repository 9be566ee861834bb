"""What the commands share: help, flags to a config, and errors as sentences.

A command is a module of this package: its docstring is its help, with `EXAMPLES` below;
`define_flags()` defines its flags and `main(arguments)` runs it and returns the exit code. One with
a config has `KIND`, the name of the config's class, and, unless that comes from a preset, a
`define_config()`. Heavy imports stand inside functions: help is there at once.
"""

import contextlib
import difflib
import os
import pathlib
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import console
from spp_jax.runs import memory, signals

T = TypeVar("T")

PRESETS = pathlib.Path(__file__).parents[1] / "presets"
# The commands whose presets return a config of that name.
COMMANDS = {
    "Config": "train",
    "DetectionConfig": "detect train",
    "SvmConfig": "eval --protocol=svm",
}
_PRESET = "--config="
HELP = {"-h", "--help", "-help", "--helpshort", "--helpfull"}


def run(command: Any, argv: Sequence[str], *, arguments: bool = False) -> NoReturn:
    """Runs a command with its flags and exits.

    Wrong flags, InputErrors, and files that the system refuses are printed as one sentence; the
    exit code is then 2. Ctrl-C, SIGTERM and SIGHUP end the command with 128 and their number.

    Args:
        command: the module.
        argv: the name of the program, then flags.
        arguments: whether the command takes what is no flag.
    """
    command.define_flags()
    if getattr(command, "SEVERAL", False):
        _define_places()
    if HELP & set(argv[1:]):
        print(help_text(command, argv[0]))
        sys.exit(0)
    console.guard_streams()
    ended = signals.end_like_interrupts()
    rest: list[str] = []
    processes = contextlib.ExitStack()

    def interrupted_or(function: Callable[..., Any], *given: Any) -> Any:
        try:
            return function(*given)
        except Exception as e:
            # What cannot be read or written is said all the same.
            if ended.signal is None or isinstance(e, (errors.InputError, OSError)):
                raise
            raise signals.Ended(ended.signal) from None

    def parse(argv: Sequence[str]) -> list[str]:
        rest.extend(interrupted_or(_parse, command, argv, processes))
        if rest and not arguments:
            fail(f"unexpected argument {rest[0]!r}")
        return [argv[0]]

    def guarded(_: Sequence[str]) -> None:
        try:
            with processes:
                code = interrupted_or(command.main, rest)
            sys.exit(code)
        except errors.OthersError:
            sys.exit(2)
        except errors.InputError as e:
            fail(str(e))
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)
        except OSError as e:
            if e.strerror is None or (e.filename is None and e.errno not in errors.OF_DISKS):
                raise
            fail(f"{e.filename or 'reading or writing failed'}: {e.strerror}")

    _say_warnings()
    _drop_late_callbacks()
    _use_compilation_cache()
    memory.keep_freed()
    try:
        app.run(guarded, argv=list(argv), flags_parser=parse)
    except KeyboardInterrupt as e:
        console.complain("interrupted")
        sys.exit(128 + signals.number_of(e))
    raise AssertionError("app.run ends the process")


def _parse(command: Any, argv: Sequence[str], processes: contextlib.ExitStack) -> list[str]:
    """Parses the flags and returns what is none; ends the process where they are wrong.

    `processes` are the others of the command, if there are any: what is read for flags, a
    checkpoint's config, may already need them.
    """
    argv = _join_config(argv)
    presets = [argument for argument in argv if argument.startswith(_PRESET)]
    if len(presets) > 1:
        fail(f"--config is given {len(presets)} times")
    try:
        flags.FLAGS(argv, known_only=True)
        if getattr(command, "SEVERAL", False):
            _start_processes(processes)
        if hasattr(command, "KIND"):
            getattr(command, "define_config", define_config_file)()
        rest = flags.FLAGS(argv)[1:]
    except KeyError as e:
        # What ml_collections says of a field that is not there.
        is_field = str(e.args[0]).startswith(("Field ", "Attribute "))
        fail(_unknown_field(command, argv) if is_field else f"--config: {e!r}")
    except errors.InputError as e:
        fail(str(e))
    except OSError:  # of a preset that was given fields to change
        fail("".join(presets) + " cannot be read; `spp presets` lists presets")
    except (flags.Error, ValueError, TypeError) as e:
        if "Overriding config is not allowed" in str(e):
            fail("the config is the workdir's own; --config.FIELD=VALUE changes a field of it")
        lines = str(e).strip().split("\n")
        # Of an error in a preset's get_config() ml_collections gives the whole traceback.
        reason = lines[-1].removeprefix("spp_jax.errors.InputError: ")
        fail(lines[0] + (f" {reason}" if "Traceback" in str(e) else ""))
    except Exception as e:  # a preset is a program of the user's, and can fail in any way
        fail(f"--config: {type(e).__name__}: {e}")
    # Orbax tells of every file it writes, and of a failure ten times; our error says it once.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)
    return rest


def _define_places() -> None:
    """Defines where a process is among several of its command."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "Processes of the command.")
    flags.DEFINE_integer("process_id", None, "The number of this one, from 0.")
    flags.DEFINE_integer("start_seconds", 300, "Seconds to wait for the others.", lower_bound=1)
    flags.DEFINE_integer(
        "heartbeat_seconds", 30, "Seconds without a sign of life: lost.", lower_bound=1
    )


def _start_processes(processes: contextlib.ExitStack) -> None:
    """Starts this process as one of several, if it is one; they end when `processes` closes."""
    from spp_jax import cluster

    given = flags.FLAGS
    place = cluster.Place(given.coordinator, given.num_processes, given.process_id)
    if not cluster.is_one_of_several(place):
        return
    # Our error says in a sentence what C++ says of a lost process. JAX reads it as it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    console.keep_stdout()
    console.end_aborts(
        "process 0, through which the others know each other, ended, or JAX failed for the reason "
        "above; started again, the run goes on from its last checkpoint"
    )
    processes.enter_context(
        cluster.start(
            place,
            console.end_at_once,
            start_seconds=given.start_seconds,
            heartbeat_seconds=given.heartbeat_seconds,
        )
    )


def help_text(command: Any, program: str) -> str:
    """Returns the help of a command: its docstring, its flags and its examples."""
    own = flags.FLAGS.flags_by_module_dict().get(command.__name__, [])
    lines = [(command.__doc__ or "").strip()]
    if own or hasattr(command, "KIND"):
        lines += ["", "Flags:"]
    if hasattr(command, "KIND"):
        lines.append("  --config=PRESET        a preset's name or file; `spp presets` lists them")
        lines.append("  --config.FIELD=VALUE   a field of the config; `spp fields` lists them")
    if getattr(command, "SEVERAL", False):
        lines.append("  --coordinator=HOST:PORT --num_processes=N --process_id=I")
        lines.append("  --start_seconds=300 --heartbeat_seconds=30")
        lines.append("                         one of several processes (docs/cluster.md)")
    for flag in own:
        value = "" if flag.boolean else "=" + flag.name.upper()
        shown = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        default = "" if shown in (None, "", False) else f" (default: {shown})"
        lines.append(f"  --{flag.name + value:20} {flag.help}{default}")
    lines += ["", "Examples:", *(f"  {_as_typed(program)} {e}" for e in command.EXAMPLES)]
    return "\n".join(lines)


def _as_typed(program: str) -> str:
    return f"python {os.path.basename(program)}" if program.endswith(".py") else program


def take_command(argv: list[str], names: Sequence[str]) -> str:
    """Takes the first argument, one of `names`, off the command line."""
    given = argv[1] if len(argv) > 1 else ""
    if given not in names:
        fail(f"the first argument must be one of {', '.join(names)}, got {given!r}")
    del argv[1]
    return given


def define_config_file() -> None:
    """Defines `--config=FILE`, a preset, and `--config.field=value`."""
    config_flags.DEFINE_config_file("config", help_string="Preset: a file of configs/.")


def read_config(kind: type[T]) -> T:
    """Returns the preset of `--config` with its overrides; raises InputError if it is no `kind`."""
    flag = flags.FLAGS["config"]
    config = flag.value
    try:
        # Of a file that could not be read ml_collections tells only when it is looked into.
        if hasattr(config, "seed") and isinstance(config, kind):
            return config
    except OSError as e:
        path = config_flags.get_config_filename(flag)
        raise errors.InputError(
            f"--config={path} cannot be read; `spp presets` lists presets"
        ) from e
    other = COMMANDS.get(type(config).__name__)
    if other:
        path = config_flags.get_config_filename(flag)
        raise errors.InputError(
            f"--config={path} is a preset of `{other}`, not of `{COMMANDS[kind.__name__]}`"
        )
    raise errors.InputError(
        f"--config=PRESET is missing, or its get_config() returns no {kind.__name__}; `spp "
        "presets` lists presets"
    )


def require(name: str, meaning: str) -> str:
    """Returns the value of a flag, a path; raises InputError if it is missing."""
    value: Any = flags.FLAGS[name].value
    if not value:
        raise errors.InputError(f"--{name} is missing: {meaning}")
    return os.path.expanduser(value)


def parse_levels(flag: str, text: str) -> tuple[int, ...]:
    """Returns the levels of a flag's text "6,3,2,1", or () for "()"; raises InputError."""
    if text == "()":
        return ()
    try:
        return tuple(int(n) for n in text.strip("()").rstrip(",").split(","))
    except ValueError as e:
        raise errors.InputError(f"{flag}={text} is no list of whole numbers like 6,3,2,1") from e


def fail(sentence: str) -> NoReturn:
    """Prints an error and ends the process with exit code 2."""
    console.complain(f"error: {sentence}")
    sys.exit(2)


def find_preset(preset: str) -> str:
    """Returns NAME:ARGUMENT with the file of a packaged preset in place of its name."""
    name, has_argument, argument = preset.partition(":")
    path = PRESETS / f"{name}.py"
    is_packaged = name.isidentifier() and name[0] != "_" and path.exists()
    return f"{path}{has_argument}{argument}" if is_packaged else preset


def _unknown_field(command: Any, argv: Sequence[str]) -> str:
    """Returns a sentence about the first field that does not exist, with the nearest one."""
    kinds = (getattr(config_lib, kind)() for kind in (command.KIND, *COMMANDS))
    paths = [[entry.path for entry in config_lib.entries(config)] for config in kinds]
    given = [a.removeprefix("--config.").split("=")[0] for a in argv if a.startswith("--config.")]
    # eval takes two kinds of config: most of the fields are right.
    known = max(paths, key=lambda own: sum(path in own for path in given))
    path = next((p for p in given if p not in known), "")
    near = difflib.get_close_matches(path, known, n=1)
    hint = f"the nearest is config.{near[0]}" if near else "`spp fields PRESET` lists fields"
    return f"unknown config field: config.{path}; {hint}"


def _join_config(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with `--config=FILE` in place of `--config NAME` and `-config=NAME`."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--config", "-config"):
            joined[-1] = f"{_PRESET}{argument}"
        else:
            is_short = argument.startswith(("-config=", "-config."))
            joined.append(f"-{argument}" if is_short else argument)
    return [
        _PRESET + find_preset(a.removeprefix(_PRESET)) if a.startswith(_PRESET) else a
        for a in joined
    ]


def _say_warnings() -> None:
    """Makes warnings about input one sentence on standard error; others stay as they are."""
    show = warnings.showwarning

    def say(message: Any, category: type[Warning], *rest: Any, **options: Any) -> None:
        if issubclass(category, errors.InputWarning):
            console.complain(f"warning: {message}")
        else:
            show(message, category, *rest, **options)

    warnings.showwarning = say


def _drop_late_callbacks() -> None:
    """Keeps TensorStore from printing a traceback for each part of a write that failed.

    Orbax closes its event loop where a write fails; parts that end later call into it, in threads.
    """
    show = sys.unraisablehook

    def drop(ignored: Any) -> None:
        error = ignored.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            show(ignored)

    sys.unraisablehook = drop


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user says where or that not (JAX's own
    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE). JAX reads it when it starts."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "spp_jax", "xla"))
