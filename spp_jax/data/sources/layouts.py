"""Tells which folders of photographs are classes, which are splits, and which are neither.

Folders may be arranged as PATH/CLASS/images, as PATH/train/CLASS/images beside
PATH/val/CLASS/images, and as either of them inside folders that hold nothing else (wrappers). Links
to folders are followed.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spp_jax import errors
from spp_jax.data.images import formats
from spp_jax.data.sources import base
from spp_jax.runs import files as files_lib

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".webp", ".avif"),
        *(".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
# Formats that are not read; notes count such files. Raw files of cameras begin as TIFF does.
_OTHER_SUFFIXES = frozenset(
    {
        *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".tga", ".exr", ".raw"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    }
)
# Left by systems and programs in any folder; names that begin with a dot are passed over too.
_JUNK = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"),
        *("system volume information", "__pycache__"),
    }
)
# Names of the folders of splits, also spelled as "Val" and "val-set". Evaluation takes the first
# name below the first row, read from left to right, that a folder has. So training does not watch
# the test split while there is another one.
_SPLITS = {
    "train": ("train", "training", "train_set", "training_set", "trainset"),
    "validation": ("validation", "val", "valid", "validation_set", "val_set", "valid_set"),
    "dev": ("dev", "dev_set", "development"),
    "test": ("test", "testing", "test_set", "testing_set", "testset", "eval", "evaluation"),
}


class Layout(NamedTuple):
    """The splits or class folders of a folder.

    Attributes:
        path: the folder that holds them: the folder asked for, or one inside its wrappers.
        splits: the names of the split folders; empty where there are class folders only.
        notes: sentences for the user about how the folder was read, as of `base.Source`.
    """

    path: str
    splits: tuple[str, ...]
    notes: tuple[str, ...]


class Images(NamedTuple):
    """The images under a folder, as paths below it, and notes on files that are passed over."""

    files: tuple[str, ...]
    notes: tuple[str, ...]


def split_of(name: str) -> str:
    """Returns "train", "validation", "dev" or "test" for a name of such a split, else ""."""
    plain = name.lower().replace("-", "_").replace(" ", "_")
    return next((split for split, names in _SPLITS.items() if plain in names), "")


def eval_split(splits: Sequence[str]) -> str:
    """Returns the split that evaluation takes by default, "" if none has a name for that."""
    plain = {name.lower().replace("-", "_").replace(" ", "_"): name for name in reversed(splits)}
    names = [name for split, names in _SPLITS.items() if split != "train" for name in names]
    return next((plain[name] for name in names if name in plain), "")


def find_split(splits: Sequence[str], wanted: str) -> str:
    """Returns the split of the wanted name, or the one of another spelling of it; "" if none.

    Raises:
        InputError: two splits are other spellings of it.
    """
    if wanted in splits:
        return wanted
    kind = split_of(wanted)
    matches = [name for name in splits if kind and split_of(name) == kind]
    if len(matches) > 1:
        raise errors.InputError(
            f"{matches[0]}/ and {matches[1]}/ may both be the split {wanted}; name one of them in "
            "config.data.split or config.data.eval_split"
        )
    return matches[0] if matches else ""


def find(path: str, named: str = "", classes: Sequence[str] = ()) -> Layout:
    """Finds the splits or class folders of a folder.

    Args:
        path: the folder.
        named: the split that the user asks for, which may have any name, or "".
        classes: names of classes; a folder with such a name is never a wrapper.

    Raises:
        InputError: the folder is missing, or splits are beside or inside class folders.
    """
    if not path:
        raise errors.InputError(
            "config.data.path is not set; it is the folder that holds the class folders"
        )
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {errors.printable(path)}")
    notes: list[str] = []
    while True:
        inner = list_folders(path)
        splits = [n for n in inner if split_of(n) or n == named]
        filled = [n for n in splits if _holds_classes(os.path.join(path, n))]
        if filled:
            notes += _check_others(path, inner, filled, named)
            return Layout(path, tuple(filled), tuple(notes))
        if splits and len(splits) == len(inner) and _has_image(os.path.join(path, splits[0])):
            raise errors.InputError(
                f"{os.path.join(path, splits[0])} holds images and no class folders; the images of "
                f"a class belong in a folder of their own, {splits[0]}/CLASS"
            )
        wrapped = _wrapped(path, classes)
        if not wrapped:
            return Layout(path, (), (*notes, *_check_classes(path, inner)))
        notes.append(f"{path} holds one folder of images, {wrapped}, which is taken in its place")
        path = wrapped


def unwrap(path: str, classes: Sequence[str] = ()) -> str:
    """Returns the folder that holds the class folders: `path`, or a folder inside its wrappers."""
    while wrapped := _wrapped(path, classes):
        path = wrapped
    return path


def list_folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without those that systems leave."""
    return [entry.name for entry in _entries(path) if _is_folder(entry)]


def list_images(path: str, *, deep: bool = True) -> Images:
    """Lists the images under a folder, sorted; unless `deep`, only those right in it.

    A file is an image by its suffix or, where it has none, by its first bytes.

    Raises:
        InputError: a folder cannot be read.
    """
    files, others, loops = [], [], []
    for inner, entry in _walk(path, loops, deep=deep):
        kind = _kind(entry, trust_suffix=False)
        if kind:
            (files if kind == "image" else others).append(os.path.join(inner, entry.name))
    notes = []
    if others:
        notes.append(
            f"{path}: passed over {len(others)} file(s) that look like images, "
            f"{errors.printable(min(others))} the first: their format is not read, or their "
            "suffix is no image's; convert or rename them"
        )
    if loops:
        notes.append(f"{path}: passed over {loops[0]}, a link to a folder that it is in")
    return Images(tuple(sorted(files)), tuple(notes))


def _check_others(
    path: str, inner: Sequence[str], filled: Sequence[str], named: str
) -> Iterator[str]:
    """Yields notes on folders beside the split folders; raises if those may be classes."""
    rest = [n for n in inner if n not in filled]
    has_both = len({split_of(n) for n in filled}) > 1
    is_told = named in filled and not split_of(named)
    is_sure = has_both or is_told
    strangers = (n for n in rest if not split_of(n) and _has_image(os.path.join(path, n)))
    if not is_sure and (stranger := next(strangers, "")):
        raise errors.InputError(
            f"{path} holds {filled[0]}/, which has folders as a split has, beside "
            f"{stranger}/, which is none: rename {filled[0]}/ if it is a class, or give the "
            "folder of the class folders"
        )
    for name in rest:
        if _has_image(os.path.join(path, name), or_other=True):
            reason = "holds no class folders" if split_of(name) else "is no split"
            yield f"{os.path.join(path, name)} {reason}; training and evaluation pass over it"


def _check_classes(path: str, names: Sequence[str]) -> Iterator[str]:
    """Yields a note if class folders look like splits; raises if they hold the splits."""
    inside = [set(list_folders(os.path.join(path, name))) for name in names]
    shared = sorted(set.intersection(*inside)) if len(inside) > 1 else []
    if len(shared) > 1 and all(split_of(name) for name in shared):
        raise errors.InputError(
            f"each class folder of {path} holds {shared[0]}/ and {shared[1]}/: splits belong "
            f"around the classes, as {shared[0]}/{names[0]}"
        )
    if len(shared) > 1:
        yield (
            f"the class folders of {path}, as {names[0]}, all hold folders called {shared[0]} and "
            f"{shared[1]}: if those are the classes, set config.data.split to {names[-1]}"
        )


def _holds_classes(path: str) -> bool:
    if list_folders(path):
        return True
    files = list_images(path, deep=False).files
    return bool(files) and all(base.WNID.match(file) for file in files)


def _wrapped(path: str, classes: Sequence[str]) -> str:
    """Returns the folder that a wrapper holds; "" if `path` is no wrapper.

    A wrapper holds images in one of its folders only, and that one holds them in folders.
    """
    filled = (name for name in list_folders(path) if _has_image(os.path.join(path, name)))
    first = next(filled, "")
    if not first or next(filled, "") or base.find_class(first, classes) >= 0:
        return ""
    wrapped = os.path.join(path, first)
    has_images = any(list_images(folder, deep=False).files for folder in (path, wrapped))
    return "" if has_images else wrapped


def _has_image(path: str, *, or_other: bool = False) -> bool:
    """Whether there is an image under a folder; `or_other`: or one of a format that is not read."""
    kinds = ("image", "other") if or_other else ("image",)
    return any(_kind(entry, trust_suffix=True) in kinds for _, entry in _walk(path, [], deep=True))


def _kind(entry: os.DirEntry[str], *, trust_suffix: bool) -> str:
    """Returns "image" for a file that is read as one, "other" for one that looks like one, or "".

    With `trust_suffix` only files without a suffix are opened.
    """
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in _OTHER_SUFFIXES:
        return "other"
    has_none = not suffix or suffix[1:].isdecimal()
    start = _first_bytes(entry) if has_none or not trust_suffix else b""
    if not formats.is_sure(start):
        return ""
    return "image" if has_none and formats.find(start) not in formats.UNREAD else "other"


def _walk(path: str, loops: list[str], *, deep: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields (folder below `path`, entry) of every file; `loops` gets links to folders above."""
    spelled = (os.path.abspath(path), os.path.realpath(path))
    parents = {_identity(p) for full in spelled for p in _parents(full)}
    yield from _walk_below(path, "", parents, loops, deep=deep)


def _walk_below(
    path: str, inner: str, above: set[tuple[int, int]], loops: list[str], *, deep: bool
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    folder = os.path.join(path, inner)
    entries = _entries(folder)
    above = above | {_identity(folder)}
    for entry in entries:
        name = os.path.join(inner, entry.name)
        if not _is_folder(entry):
            if entry.is_symlink() or entry.is_file():  # a link to nothing is refused when read
                yield inner, entry
        elif deep and _identity(entry.path) in above:
            loops.append(name)
        elif deep:
            yield from _walk_below(path, name, above, loops, deep=True)


def _parents(path: str) -> Iterator[str]:
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as scanned:
            entries = [
                e for e in scanned if not e.name.startswith(".") and e.name.lower() not in _JUNK
            ]
    except OSError as e:
        raise errors.InputError(f"folder {path} cannot be read: {e.strerror}") from e
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _first_bytes(entry: os.DirEntry[str]) -> bytes:
    try:
        with files_lib.open_regular(entry.path) as f:
            return f.read(formats.NUM_BYTES)
    except OSError:
        return b""
