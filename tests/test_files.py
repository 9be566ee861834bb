"""Files: text of any editor, and names for any text."""

import json

import pytest

from spp_jax import errors
from spp_jax.runs import files


@pytest.mark.parametrize(
    "data", [b"a\nb", b"\xef\xbb\xbfa\r\nb", "a\rb".encode("utf-16"), b"\xfe\xff\0a\0\n\0b"]
)
def test_text_of_any_editor(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert files.read_text(str(tmp_path / "x")) == "a\nb"


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        *((n, n) for n in ("cat", "50%", "a:b*?<>|", "$1_$5", "猫", "a b", "x.y", "%zz", "a\\b")),
        ("w/o helmet", "w%2Fo helmet"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E."),
        ("a\nb\tc\0", "a%0Ab%09c%00"),
        # What looks like an escape is none.
        ("w%2Fo helmet", "w%252Fo helmet"),
        ("%/", "%%2F"),
        ("%2/", "%2%2F"),
    ],
)
def test_names_that_can_be_are_left_and_others_are_escaped(tmp_path, name, escaped):
    assert files.escape(name) == escaped
    with files.replacing(str(tmp_path / escaped)) as f:
        f.write(b"")
    assert [p.name for p in tmp_path.iterdir()] == [escaped]


def test_objects_with_a_checksum(tmp_path):
    path = tmp_path / "x.json"
    entries = {"b": [1, 0.1, float("inf")], "a": {"c": "\u732b"}}
    files.write_checked(str(path), entries, indent=1)
    # zlib.crc32(b'{"a": {"c": "\\u732b"}, "b": [1, 0.1, Infinity]}')
    assert json.loads(path.read_text())["crc32"] == 1446848193
    assert files.read_checked(str(path)) == entries
    text = path.read_text()
    for old, new in (
        ("0.1", "0.2"),
        ("732b", "732c"),
        ('"b"', '"d"'),
        ("0.1,", ""),
        ("1446848193", "1"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match="its entries are not as saved"):
            files.read_checked(str(path))
    path.write_text(json.dumps(entries))
    with pytest.warns(
        errors.InputWarning, match="x.json is of a version without checksums: damage"
    ):
        assert files.read_checked(str(path)) == entries


def test_long_names_are_cut_and_stay_apart(tmp_path):
    names = ["x" * 300, "x" * 299 + "y", "猫" * 100, "/" * 70, "x" * 200]
    escaped = [files.escape(name) for name in names]
    assert len(set(escaped)) == 5
    assert max(len(name.encode()) for name in escaped) <= 200
    assert escaped[0].startswith("x" * 182 + "%~")
    assert escaped[2].startswith("猫" * 60 + "%~")
    assert escaped[4] == names[4]
