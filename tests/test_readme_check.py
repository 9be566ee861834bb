"""What `make readme-check` finds in a page, and that it knows every command that is printed."""

import pathlib

import pytest

from tools import readme_check

ROOT = pathlib.Path(__file__).parent.parent

PAGE = """
Text with `python a.py --x=1` and `a word`, and `python b.py [--y]`.

```
make train    # and what it does
python c.py --z=1
step 12/16000 1% | img/s
```

    python d.py

```python
print("example")
```
"""


def test_commands_of_a_page():
    # Usage lines with [...] and lines of output are none.
    commands = ["make train", "python c.py --z=1", "python d.py", "python a.py --x=1"]
    assert readme_check.find_commands(PAGE) == commands
    assert readme_check.find_examples(PAGE) == 'print("example")\n'


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_every_printed_command_has_a_rule(page):
    for command in readme_check.find_commands((ROOT / page).read_text()):
        assert command.startswith(readme_check.find_rule(page, command)[1])


def test_a_command_without_a_rule_is_an_error():
    with pytest.raises(SystemExit, match=r"no rule for `python new\.py`"):
        readme_check.find_rule("README.md", "python new.py")
