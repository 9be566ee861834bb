"""Parses VOC annotation files, whichever tool wrote them.

Corners are as in the file: counted from 1, right and bottom inclusive.
"""

import codecs
import dataclasses
import math
import re
import xml.etree.ElementTree
from collections.abc import Iterator

# The words that tools write for yes and no; most write 1 and 0.
_YES = {"1", "true", "yes"}
_NO = {"", "0", "false", "no", "none", "unspecified", "unknown"}
# The most bytes of an annotation: 60,000 objects, 0.4 GB when parsed.
MAX_BYTES = 2**24
# Encodings of names of hosts, which take hours for MAX_BYTES.
_SLOW = {"punycode", "idna"}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ENCODING = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.:-]+)[\"']")


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of an object.

    Attributes:
        name: the class of the object; "" where the file has none.
        corners: xmin, ymin, xmax, ymax; NaN where one is missing.
        is_difficult: whether the object is marked as difficult.
    """

    name: str
    corners: tuple[float, float, float, float]
    is_difficult: bool


@dataclasses.dataclass(frozen=True)
class File:
    """An annotation file.

    Attributes:
        height, width: the sides in `<size>`, in pixels; None where one is missing or 0.
        boxes: of all objects, in the file's order; an object with several boxes counts as several.
    """

    height: float | None
    width: float | None
    boxes: tuple[Box, ...]


def parse(data: bytes) -> File:
    """Parses an annotation file.

    Raises:
        ValueError: it is no annotation in XML, or holds text where a number belongs.
    """
    tree = _parse_xml(data)
    if tree.tag != "annotation" and tree.find(".//object") is None:
        raise ValueError(f"it is no VOC annotation: its outermost element is <{tree.tag}>")
    height, width = (_side(tree.findtext(f"size/{side}"), side) for side in ("height", "width"))
    return File(height, width, tuple(box for o in tree.iter("object") for box in _boxes(o)))


def _boxes(item: xml.etree.ElementTree.Element) -> Iterator[Box]:
    name = (item.findtext("name") or "").strip()
    is_difficult = _flag((item.findtext("difficult") or "").strip())
    # Children of the object alone: the boxes of a <part>, a head or a hand, are no objects.
    for box in item.findall("bndbox") or [xml.etree.ElementTree.Element("bndbox")]:
        x1, y1, x2, y2 = (_number(box.findtext(corner), corner) for corner in CORNERS)
        yield Box(name, (x1, y1, x2, y2), is_difficult)


def _side(text: str | None, name: str) -> float | None:
    value = _number(text, name)
    if math.isinf(value) or value < 0:
        raise ValueError(f"<{name}> of its <size> is {value:g}")
    return value if value > 0 else None  # NaN, a missing side, is not above 0


def _number(text: str | None, name: str) -> float:
    """Returns the number in a text, NaN for an empty or missing text."""
    try:
        return float((text or "").strip() or "nan")
    except ValueError:
        raise ValueError(f"<{name}> is {text!r}, no number") from None


def _flag(text: str) -> bool:
    word = text.lower()
    if word in _YES | _NO:
        return word in _YES
    try:
        return float(word) != 0  # "1.0"
    except ValueError:
        raise ValueError(f"<difficult> is {text!r}, neither 0 nor 1") from None


class _Builder(xml.etree.ElementTree.TreeBuilder):
    """Refuses document types: their entities can grow without end when they are read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it declares a document type, <!DOCTYPE {name}>, which is not read")


def _parse_text(text: str | bytes) -> xml.etree.ElementTree.Element:
    parser = xml.etree.ElementTree.XMLParser(target=_Builder())
    return xml.etree.ElementTree.fromstring(text, parser)


def _parse_xml(data: bytes) -> xml.etree.ElementTree.Element:
    data = data.lstrip()
    try:
        return _parse_text(data)
    # LookupError: an unknown encoding; ValueError: one that only the XML reader does not know.
    except (xml.etree.ElementTree.ParseError, LookupError, ValueError) as e:
        reason = e
    for name in _encodings(data):
        try:
            return _parse_text(data.decode(name))
        except (UnicodeError, LookupError, xml.etree.ElementTree.ParseError):
            continue  # LookupError: "base64" is a codec, but not of text
    raise ValueError(str(reason)) from reason


def _encodings(data: bytes) -> list[str]:
    """Returns the encodings to try for the one a file declares: Windows tools declare "ANSI"."""
    declared = _ENCODING.match(data.removeprefix(codecs.BOM_UTF8))
    if not declared:
        return []
    name = declared[1].decode()
    try:
        is_slow = codecs.lookup(name).name in _SLOW
    except LookupError:
        return ["utf-8-sig", "cp1252"]
    return ["utf-8-sig"] if is_slow else [name, "utf-8-sig"]
