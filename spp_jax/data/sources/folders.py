"""Folders of photographs: class folders, alone or in train/ and val/, or images in any folders."""

import itertools
import os
from collections.abc import Iterator, Sequence

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, layouts


class FolderSource:
    """Images of class folders, classes and files in sorted order; nested folders are walked.

    Attributes:
        path: the folder that holds the class folders.
        class_names: the names of the classes, by label.
        split: the name of the split, "train", "val" ...; "" where the folder has no splits.
        notes: sentences for the user about how the folder was read, as of `base.Source`.
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
        """Returns the same images, labelled by index in a network's list of classes.

        Raises:
            InputError: the network does not have the class of a folder.
        """
        indices = base.match_classes(self.class_names, class_names, self.path)
        labels = [indices[label] if label >= 0 else -1 for label in self._labels]
        return FolderSource(self.path, class_names, self._files, labels, self.split, self.notes)


def scan_folder(
    path: str, split: str, *, classes: Sequence[str] = (), refuse_empty: bool = True
) -> FolderSource:
    """Lists the images of the class folders under path/split, or under path for split "".

    Images named by class, as ImageNet's n01440764_10026.JPEG, may also lie in one folder without
    class folders: then these names give the classes. A folder that holds nothing but one folder of
    class folders or splits (a wrapper) is replaced by that one.

    Args:
        path: the folder.
        split: the name of a folder in it, in any spelling that `layouts.split_of` understands.
        classes: names of classes; a folder with such a name is never a wrapper.
        refuse_empty: whether to refuse a class without images, which nothing could be learnt from.

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
    notes += _notes_beside(path, root, layout, name)
    names = layouts.list_folders(root)
    if not names:
        return _scan_flat(root, split, notes)
    files, labels = [], []
    for label, name in enumerate(names):
        images_of_class = layouts.list_images(os.path.join(root, name))
        notes += images_of_class.notes
        if not images_of_class.files and refuse_empty:
            raise errors.InputError(
                f"class folder {os.path.join(root, name)} holds no image that is read; remove it, "
                "or put images of the class in it"
            )
        files += [os.path.join(name, file) for file in images_of_class.files]
        labels += [label] * len(images_of_class.files)
    if not files:
        raise errors.InputError(f"the class folders of {root} hold no image that is read")
    return FolderSource(root, names, files, labels, split, notes)


def open_pair(path: str) -> tuple[FolderSource, FolderSource] | None:
    """Returns the training split of a folder and the split to test on, with one list of classes.

    The classes of both are those of train/. Returns None where the folder has no train/, or no
    split beside it.

    Raises:
        InputError: a class of train/ has no images, or the other split has a class that train/
            does not have.
    """
    splits = layouts.find(path).splits
    split = layouts.eval_split(splits)
    if not layouts.find_split(splits, "train") or not split:
        return None
    train = scan_folder(path, "train")
    test = scan_folder(path, split, classes=train.class_names, refuse_empty=False)
    return train, test.relabel(train.class_names)


def check_classes(source: FolderSource) -> None:
    """Raises InputError if there is one class only: a network would learn to answer only that."""
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
    """Lists every image under a folder, at least one, whatever its folders are named.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {errors.printable(path)}")
    listed = layouts.list_images(path)
    if not listed.files:
        raise errors.InputError("; ".join((f"folder {path} holds no image", *listed.notes)))
    return listed


def scan_images(path: str) -> FolderSource:
    """Lists every image under a folder, each with the label that training and evaluation give it.

    The classes are those that have images in train/; without train/, in any split; without splits,
    in the folder. Images of no such class have the label -1, and so have all images of a folder
    that training refuses. The notes count the images without a label and say why they have none.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    files, notes = list_all(path)
    try:
        layout = layouts.find(path)
        train = layouts.find_split(layout.splits, "train")
        parts = []
        for split in sorted(layout.splits or ("",), key=lambda split: split != train):
            # In the other splits a folder named as a class of train/ is no wrapper.
            names = parts[0].class_names if train and parts else ()
            parts.append(scan_folder(path, split, classes=names, refuse_empty=False))
    except errors.InputError as e:
        notes = (*notes, f"no image of {path} has a label, as for training: {e}")
        return FolderSource(path, (), files, [-1] * len(files), "", notes)
    class_of = {file: name for part in parts for file, name in part.classes_below(path)}
    trained = parts[:1] if train else parts
    classes = sorted({name for part in trained for _, name in part.classes_below(path)})
    index = {name: base.find_class(name, classes) for name in set(class_of.values())}
    labels = [index[class_of[file]] if file in class_of else -1 for file in files]
    outside = [file for file in files if file not in class_of]
    unknown = [file for file in class_of if index[class_of[file]] < 0]
    notes = [*notes, *layout.notes]
    for unlabelled, reason in (
        (outside, "in no class folder that training or evaluation takes"),
        (unknown, "of a class that the training split does not have"),
    ):
        if unlabelled:
            notes.append(
                f"{path}: {len(unlabelled)} of {len(files)} image(s) have no label, "
                f"{errors.printable(unlabelled[0])} the first: they are {reason}"
            )
    return FolderSource(path, classes, files, labels, "", notes)


def _notes_beside(path: str, root: str, layout: layouts.Layout, scanned: str) -> Iterator[str]:
    """Yields notes on images and splits that lie beside the folders from `path` down to `root`.

    Args:
        path: the folder that the user named.
        root: the folder that holds the class folders.
        layout: the layout of `path`.
        scanned: the name of the split that is scanned, or "".
    """
    for name in layout.splits:
        split = layouts.split_of(scanned)
        if split and name != scanned and layouts.split_of(name) == split:
            twin, folder = (os.path.join(layout.path, n) for n in (name, scanned))
            yield f"{folder} is taken for the {split} split; {twin}, another, is passed over"
    way = os.path.relpath(root, path)
    inner = [] if way == os.curdir else way.split(os.sep)
    for folder in itertools.accumulate([path, *inner], os.path.join):
        if not layouts.list_folders(folder):
            return  # its images are named by class
        beside = layouts.list_images(folder, deep=False)
        yield from beside.notes
        if beside.files:
            kind = "class folders" if folder == root else "folders"
            yield f"{folder}: passed over {len(beside.files)} image(s) beside the {kind}"


def _scan_flat(folder: str, split: str, notes: Sequence[str]) -> FolderSource:
    files, more_notes = layouts.list_images(folder)
    wnids = [base.WNID.match(file) for file in files]
    if not files or not all(wnids):
        raise errors.InputError(
            f"{folder} has no class folders in it, nor only images named by class, n01440764_*"
        )
    names = [m[0] for m in wnids if m]
    classes = sorted(set(names))
    labels = [classes.index(n) for n in names]
    return FolderSource(folder, classes, files, labels, split, [*notes, *more_notes])
