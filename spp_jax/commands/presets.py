"""Lists the presets: what `--config=NAME` takes, and which command each is for."""

import ast

from spp_jax.commands import cli

EXAMPLES = ("",)


def define_flags() -> None:
    pass


def main(arguments: list[str]) -> int:
    del arguments
    for path in sorted(cli.PRESETS.glob("*.py")):
        if path.stem == "__init__":
            continue
        text = path.read_text(encoding="utf-8")
        kind = next((k for k in cli.COMMANDS if f"-> config_lib.{k}:" in text), "")
        summary = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
        print(f"{path.stem:24} {cli.COMMANDS.get(kind, ''):20} {summary}")
    return 0
