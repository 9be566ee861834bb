"""VOC's XML as different tools write it."""

import pytest

from spp_jax.data.sources import voc_xml

OBJECT = (
    "<annotation><object><name>Bär</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3.5</xmax>"
    "<ymax>4</ymax></bndbox></object></annotation>"
)
BEAR = voc_xml.Box("Bär", (1, 2, 3.5, 4), False)


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        (None, "utf-8"),
        (None, "utf-8-sig"),
        (None, "utf-16"),
        # What Windows tools declare, as they then write it.
        ("ANSI", "utf-8"),
        ("ANSI", "cp1252"),
        ("cp65001", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-8"),
        ("ISO-8859-1", "latin-1"),
        ("windows-1252", "cp1252"),
    ],
)
def test_encodings(declared, encoding):
    head = f'<?xml version="1.0" encoding="{declared}"?>\r\n' if declared else ""
    assert voc_xml.parse((head + OBJECT).encode(encoding)).boxes == (BEAR,)


def test_an_encoding_of_several_bytes():
    text = '\n<?xml version="1.0" encoding="GBK"?>' + OBJECT.replace("Bär", "熊")
    assert voc_xml.parse(text.encode("gbk")).boxes[0].name == "熊"


def test_every_box_of_an_object_counts_but_those_of_its_parts_do_not():
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"
    part = f"<part><name>head</name>{box.format(2, 3)}</part>"
    text = (
        f"<annotation><object><name> car </name><difficult>1</difficult>{box.format(1, 4)}{part}"
        f"{box.format(6, 9)}</object><object><name>dog</name></object></annotation>"
    )
    first, second, third = voc_xml.parse(text.encode()).boxes
    assert (first, second) == (
        voc_xml.Box("car", (1, 1, 4, 9), True),
        voc_xml.Box("car", (6, 1, 9, 9), True),
    )
    assert third.name == "dog"
    assert all(corner != corner for corner in third.corners)  # NaN


@pytest.mark.parametrize(
    ("text", "is_difficult"),
    [
        *((t, True) for t in ("1", "true", " True ", "TRUE", "1.0", "yes")),
        *((t, False) for t in ("0", "", "false", "False", "0.0", "no", "Unspecified")),
    ],
)
def test_difficult(text, is_difficult):
    data = OBJECT.replace("<bndbox>", f"<difficult>{text}</difficult><bndbox>").encode()
    assert voc_xml.parse(data).boxes[0].is_difficult is is_difficult


@pytest.mark.parametrize(
    ("width", "side"),
    [("200", 200), ("200.0", 200), (" 200\n", 200), ("0", None), ("", None), ("0.0", None)],
)
def test_sides(width, side):
    parsed = voc_xml.parse(f"<annotation><size><width>{width}</width></size></annotation>".encode())
    assert (parsed.height, parsed.width, parsed.boxes) == (None, side, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no element found"),
        ("<annotation>", "no element found"),
        ("<html/>", "is no VOC annotation: its outermost element is <html>"),
        ("<annotation xmlns='x'><object/></annotation>", r"its outermost element is <\{x\}annot"),
        ("<?xml version='1.0' encoding='base64'?><annotation>", "is not a text encoding|unknown"),
        ("<annotation><size><width>-3</width></size></annotation>", "<width> of its <size> is -3"),
        (
            "<annotation><size><width>inf</width></size></annotation>",
            "<width> of its <size> is inf",
        ),
        ("<annotation><size><width>x</width></size></annotation>", "<width> is 'x', no number"),
        (OBJECT.replace("3.5", "3,5"), "<xmax> is '3,5', no number"),
        (OBJECT.replace("<bndbox>", "<difficult>2nd</difficult><bndbox>"), "'2nd', neither 0 nor"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        voc_xml.parse(text.encode())


def test_bytes_of_another_encoding_than_is_declared_are_refused():
    with pytest.raises(ValueError, match="not well-formed"):
        voc_xml.parse(OBJECT.encode("cp1252"))
