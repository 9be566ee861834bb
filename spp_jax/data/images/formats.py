"""Tells the format of an image by its first bytes, never by its name."""

NUM_BYTES = 64  # to look at; AVIF and HEIC begin with a list of brands

_MAGICS = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("WebP", (b"RIFF",)),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("BMP", (b"BM",)),
    ("PPM", (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")),
    # From here on, as HEIC, in UNREAD.
    ("JPEG XL", (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    ("PSD", (b"8BPS",)),
)
# Formats of images that are not read.
UNREAD = frozenset({"HEIC", "JPEG XL", "JPEG 2000", "PSD"})
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def find(start: bytes) -> str:
    """Returns the format of a file by its first bytes, "" if it is none of those listed here."""
    for kind, magics in _MAGICS:
        if start.startswith(magics):
            return kind
    if start[4:8] != b"ftyp":
        return ""
    stop = min(int.from_bytes(start[:4], "big"), NUM_BYTES)
    brands = {start[i : i + 4] for i in range(8, stop, 4)}
    return "AVIF" if brands & _AVIF_BRANDS else "HEIC" if brands & _HEIC_BRANDS else ""


def is_sure(start: bytes) -> bool:
    """Whether a file with these first bytes can be nothing but an image.

    False for BMP and PPM, as texts may begin with their two letters.
    """
    kind = find(start)
    return kind not in ("", "BMP", "PPM") and (kind != "WebP" or start[8:12] == b"WEBP")
