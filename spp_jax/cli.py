"""What the commands share: flags to a config, the compilation cache, and errors as sentences."""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from spp_jax import errors
from spp_jax.runs import memory

T = TypeVar("T")


def run(
    main: Callable[[], int],
    define_config: Callable[[], None] | None = None,
    arguments: list[str] | None = None,
) -> None:
    """Parses the flags, runs `main` and exits with what it returns.

    Wrong flags and InputErrors are printed as one sentence; the exit code is then 2.

    Args:
        main: the command; it reads its flags from absl.flags.FLAGS.
        define_config: called when all flags but `--config` are parsed, to define that one.
        arguments: a list that gets what is no flag; None where there may be no such thing.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            if define_config is not None:
                flags.FLAGS(argv, known_only=True)
                define_config()
            rest = flags.FLAGS(argv)[1:]
        except KeyError as e:
            # What ml_collections says of a field that is not there.
            is_field = str(e.args[0]).startswith("Field ")
            _fail(f"unknown config field: {e.args[0]}" if is_field else f"--config: {e!r}")
        except errors.InputError as e:
            _fail(str(e))
        except OSError:  # of a preset that was given fields to change
            _fail(" ".join(a for a in argv if a.startswith("--config=")) + " cannot be read")
        except (flags.Error, ValueError, TypeError) as e:
            lines = str(e).strip().split("\n")
            # Of an error in a preset's get_config() ml_collections gives the whole traceback.
            reason = lines[-1].removeprefix("spp_jax.errors.InputError: ")
            _fail(lines[0] + (f" {reason}" if "Traceback" in str(e) else ""))
        except (SyntaxError, NameError, AttributeError, ImportError) as e:  # a preset's own
            _fail(f"--config: {type(e).__name__}: {e}")
        # Orbax tells of every file it writes, and warns before it fails; our error says it.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)
        if arguments is not None:
            arguments.extend(rest)
        elif rest:
            _fail(f"unexpected argument {rest[0]!r}")
        return [argv[0]]

    def guarded(_: Sequence[str]) -> None:
        try:
            sys.exit(main())
        except errors.InputError as e:
            _fail(str(e))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            sys.exit(128 + signal.SIGINT)

    for stream in (sys.stdout, sys.stderr):
        # A file's name that is no UTF-8 is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _use_compilation_cache()
    memory.keep_freed()
    app.run(guarded, flags_parser=parse)


def take_command(names: Sequence[str]) -> str:
    """Takes the first argument, one of `names`, off the command line; without it the help says."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given in names:
        del sys.argv[1]
    elif not given.startswith("--help"):
        _fail(f"the first argument must be one of {', '.join(names)}, got {given!r}")
    return given


def define_config_file() -> None:
    """Defines `--config=FILE`, a preset, and `--config.field=value`."""
    config_flags.DEFINE_config_file("config", help_string="Preset: a file of configs/.")


def read_config(kind: type[T]) -> T:
    """Returns the preset of `--config` with its overrides; raises InputError if it is no `kind`."""
    config = flags.FLAGS["config"].value
    try:
        # Of a file that could not be read ml_collections tells only when it is looked into.
        if hasattr(config, "seed") and isinstance(config, kind):
            return config
    except OSError as e:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise errors.InputError(f"--config={path} cannot be read") from e
    raise errors.InputError(
        f"--config=FILE is missing, or its get_config() returns no {kind.__name__}"
    )


def parse_levels(flag: str, text: str) -> tuple[int, ...]:
    """Returns the levels of a flag's text "6,3,2,1", or () for "()"; raises InputError."""
    if text == "()":
        return ()
    try:
        return tuple(int(n) for n in text.strip("()").rstrip(",").split(","))
    except ValueError as e:
        raise errors.InputError(f"{flag}={text} is no list of whole numbers like 6,3,2,1") from e


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(2)


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user says where or that not (JAX's own
    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "spp_jax", "xla"))
