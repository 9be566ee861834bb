"""Folders of photographs: class folders, train/ and val/ of them, or images in any folders."""

import os
from collections.abc import Sequence

from spp_jax import errors
from spp_jax.data import base, images, layouts


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
        labels = [new[label] for label in self._labels]
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
    folder = layout.path
    if split:
        name = layouts.find_split(layout.splits, split) or split
        folder = os.path.join(layout.path, name)
        if not os.path.isdir(folder):
            raise errors.InputError(f"no folder {folder}")
    root, notes = layouts.unwrap(folder, classes), [*layout.notes]
    if root != folder:
        notes.append(f"{folder} holds one folder of images, {root}, which is taken in its place")
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
    strays = layouts.list_images(root, is_deep=False).files
    if strays:
        notes.append(f"{root}: passed over {len(strays)} image(s) beside the class folders")
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


def scan_images(path: str) -> FolderSource:
    """Lists every image under a folder, with or without classes.

    The label of an image is the first folder it is in below `path`, or below train/, val/ ..., as
    `scan_folder` has it; or the class it is named by, n01440764_10026.JPEG, if all images have one;
    else all labels are -1.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {path}")
    files, notes = layouts.list_images(path)
    if not files:
        raise errors.InputError("; ".join((f"folder {path} holds no image", *notes)))
    roots = [os.path.relpath(root, path) for root in layouts.class_roots(path)]
    prefixes = [root + os.sep for root in roots if root != os.curdir]
    names = []
    for file in files:
        below = next((file.removeprefix(p) for p in prefixes if file.startswith(p)), file)
        *inner, own = below.split(os.sep)
        wnid = base.WNID.match(own)
        names.append(inner[0] if inner else wnid[0] if wnid else "")
    if "" in names:
        return FolderSource(path, (), files, [-1] * len(files), "", notes)
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return FolderSource(path, tuple(index), files, [index[name] for name in names], "", notes)


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
