"""Folders of photographs: class folders, train/ and val/ of them, or images in any folders."""

import itertools
import os
from collections.abc import Iterator, Sequence

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, layouts


class FolderSource:
    """Images of class folders, classes and files in sorted order; nested folders are walked.

    Attributes:
        path: the folder of the class folders.
        class_names: their names.
        split: "train", "val" ... for a folder of its own, "" for the whole folder.
        notes: sentences about what was taken for what, and what was passed over.
    """

    def __init__(
        self,
        path: str,
        class_names: Sequence[str],
        files: Sequence[str],
        labels: Sequence[int],
        split: str,
        notes: Sequence[str] = (),
    ):
        self.path = path
        self.class_names = tuple(class_names)
        self.split = split
        self.notes = tuple(notes)
        self._files = list(files)
        self._labels = list(labels)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> base.Example:
        name = self.name(index)
        return base.Example(images.read_file(name), self._labels[index], name)

    def name(self, index: int) -> str:
        return os.path.join(self.path, self._files[index])

    @property
    def labels(self) -> Sequence[int]:
        """The label of every example."""
        return self._labels

    def classes_below(self, path: str) -> Iterator[tuple[str, str]]:
        """Yields each image, as its path below a folder around all of them, and its class."""
        prefix = os.path.relpath(self.path, path)
        for file, label in zip(self._files, self._labels):
            below = file if prefix == os.curdir else os.path.join(prefix, file)
            yield below, self.class_names[label]

    def subset(self, indices: Sequence[int]) -> "FolderSource":
        """Returns the source of some of the examples, in the given order."""
        files = [self._files[i] for i in indices]
        labels = [self._labels[i] for i in indices]
        return FolderSource(self.path, self.class_names, files, labels, self.split, self.notes)

    def relabel(self, class_names: Sequence[str]) -> "FolderSource":
        """Returns the source with the labels its classes have in a network's list of classes.

        Raises:
            InputError: a class folder that the network does not know.
        """
        new = base.match_classes(self.class_names, class_names, self.path)
        labels = [new[label] if label >= 0 else -1 for label in self._labels]
        return FolderSource(self.path, class_names, self._files, labels, self.split, self.notes)


def scan_folder(
    path: str, split: str, *, classes: Sequence[str] = (), has_to_be_full: bool = True
) -> FolderSource:
    """Lists the images of the class folders under path/split, or under path for split "".

    A folder without folders whose images are named by class, n01440764_10026.JPEG as ImageNet's
    are, has the classes of these names. A folder that holds nothing but one folder of class folders
    or splits stands for that.

    Args:
        path: the folder.
        split: the name of a folder in it, or of one as `layouts.split_of` knows them.
        classes: names that are known to be classes.
        has_to_be_full: refuse a class without images, as there is nothing to learn it from.

    Raises:
        InputError: a missing or empty folder, a class without images, splits beside class folders,
            or splits where `split` is "".
    """
    layout = layouts.find(path, split, classes)
    if layout.splits and not split:
        raise errors.InputError(
            f"{layout.path} holds {'/, '.join(layout.splits)}/: give the folder of one of them"
        )
    folder, name = layout.path, ""
    if split:
        name = layouts.find_split(layout.splits, split) or split
        folder = os.path.join(layout.path, name)
        if not os.path.isdir(folder):
            raise errors.InputError(f"no folder {folder}")
    root, notes = layouts.unwrap(folder, classes), [*layout.notes]
    if root != folder:
        notes.append(f"{folder} holds one folder of images, {root}, which is taken in its place")
    notes += _what_is_beside(path, root, layout, name)
    names = layouts.list_folders(root)
    if not names:
        return _scan_flat(root, split, notes)
    files, labels = [], []
    for label, name in enumerate(names):
        found = layouts.list_images(os.path.join(root, name))
        notes += found.notes
        if not found.files and has_to_be_full:
            raise errors.InputError(
                f"class folder {os.path.join(root, name)} holds no image that is read; remove it, "
                "or put images of the class in it"
            )
        files += [os.path.join(name, file) for file in found.files]
        labels += [label] * len(found.files)
    if not files:
        raise errors.InputError(f"the class folders of {root} hold no image that is read")
    return FolderSource(root, names, files, labels, split, notes)


def open_pair(path: str) -> tuple[FolderSource, FolderSource] | None:
    """Returns train/ of a folder and what there is to test on, with the classes of train/.

    None where the folder has no train/, or nothing beside it.

    Raises:
        InputError: a class to train on without images, or one that train/ does not have.
    """
    known = layouts.find(path).splits
    split = layouts.eval_split(known)
    if not layouts.find_split(known, "train") or not split:
        return None
    train = scan_folder(path, "train")
    test = scan_folder(path, split, classes=train.class_names, has_to_be_full=False)
    return train, test.relabel(train.class_names)


def check_classes(source: FolderSource) -> None:
    """Raises InputError if there is one class only: a network would learn to say nothing else."""
    if len(source.class_names) > 1:
        return
    name = "".join(source.class_names)
    folder = os.path.join(source.path, name)
    inner = layouts.list_folders(folder) if os.path.isdir(folder) else []
    hint = "".join(
        f"; {folder} holds folders, {n}/ the first: are they classes?" for n in inner[:1]
    )
    raise errors.InputError(
        f"{source.path} has images of one class only, {name!r}; training needs two or more class "
        f"folders side by side{hint}"
    )


def list_all(path: str) -> layouts.Images:
    """Lists every image under a folder, whatever the folders in it are; at least one.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {path}")
    found = layouts.list_images(path)
    if not found.files:
        raise errors.InputError("; ".join((f"folder {path} holds no image", *found.notes)))
    return found


def scan_images(path: str) -> FolderSource:
    """Lists every image under a folder, with the labels that it has in training and evaluation.

    The classes are those of training that have images: of train/ where there is one, else of all
    splits, or of the folder. Any other image has the label -1, and so have all where the folder is
    refused; the notes count them and say why.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    files, notes = list_all(path)
    try:
        layout = layouts.find(path)
        own = layouts.find_split(layout.splits, "train")
        parts = []
        for split in sorted(layout.splits or ("",), key=lambda split: split != own):
            # A class is no wrapper in the splits that are evaluated.
            known = parts[0].class_names if own and parts else ()
            parts.append(scan_folder(path, split, classes=known, has_to_be_full=False))
    except errors.InputError as e:
        notes = (*notes, f"no image of {path} has a label, as for training: {e}")
        return FolderSource(path, (), files, [-1] * len(files), "", notes)
    found = {file: name for part in parts for file, name in part.classes_below(path)}
    trained = parts[:1] if own else parts
    classes = sorted({name for part in trained for _, name in part.classes_below(path)})
    index = {name: base.find_class(name, classes) for name in set(found.values())}
    labels = [index[found[file]] if file in found else -1 for file in files]
    outside = [file for file in files if file not in found]
    unknown = [file for file in found if index[found[file]] < 0]
    notes = [*notes, *layout.notes]
    for some, reason in (
        (outside, "in no class folder that training or evaluation takes"),
        (unknown, "of a class that the training split does not have"),
    ):
        if some:
            notes.append(
                f"{path}: {len(some)} of {len(files)} image(s) have no label, "
                f"{errors.printable(some[0])} the first: they are {reason}"
            )
    return FolderSource(path, classes, files, labels, "", notes)


def _what_is_beside(path: str, root: str, layout: layouts.Layout, taken: str) -> Iterator[str]:
    """Yields sentences about what is beside the folders on the way from `path` to its classes.

    Args:
        path: the folder that was given.
        root: of the class folders.
        layout: of `path`.
        taken: the name of its split that is scanned, or "".
    """
    for name in layout.splits:
        split = layouts.split_of(taken)
        if split and name != taken and layouts.split_of(name) == split:
            twin, own = (os.path.join(layout.path, n) for n in (name, taken))
            yield f"{own} is taken for the {split} split; {twin}, another, is passed over"
    way = os.path.relpath(root, path)
    inner = [] if way == os.curdir else way.split(os.sep)
    for folder in itertools.accumulate([path, *inner], os.path.join):
        if not layouts.list_folders(folder):
            return  # of images that are named by class
        found = layouts.list_images(folder, is_deep=False)
        yield from found.notes
        if found.files:
            what = "class folders" if folder == root else "folders"
            yield f"{folder}: passed over {len(found.files)} image(s) beside the {what}"


def _scan_flat(folder: str, split: str, notes: Sequence[str]) -> FolderSource:
    files, own_notes = layouts.list_images(folder)
    wnids = [base.WNID.match(file) for file in files]
    if not files or not all(wnids):
        raise errors.InputError(
            f"{folder} has no class folders in it, nor only images named by class, n01440764_*"
        )
    names = [m[0] for m in wnids if m]
    classes = sorted(set(names))
    labels = [classes.index(n) for n in names]
    return FolderSource(folder, classes, files, labels, split, [*notes, *own_notes])
