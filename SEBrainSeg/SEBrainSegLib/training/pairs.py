"""Folders of images with their label maps: which belong together, and whether they can be trained on."""

from pathlib import Path
from typing import NamedTuple, Union

import numpy as np
import SimpleITK as sitk

from ..errors import SEBrainSegError
from ..files.endings import split_ending
from ..files.reading import read
from ..inference.geometry import check, check_scalar, corners

SUFFIXES = (("_image", "_labels"), ("_t1", "_structures"))


FOLDERS = ("images", "labels")


LAYOUT = "NAME_image.nii.gz with NAME_labels.nii.gz, or folders images and labels with equal file names"


class Pair(NamedTuple):
    """An image and its label map."""

    name: str
    image: Path
    labels: Path


def _files_by_stem(folder: Union[Path, str]) -> dict[str, Path]:
    """Map the name without ending of every image file in a folder to its path.

    Raises:
        SEBrainSegError: two files differ in their endings only.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        stem, ending = split_ending(path.name)
        # The voxels of a header are no image of their own.
        if not stem or not ending or ending in (".img", ".img.gz"):
            continue
        if stem in found:
            raise SEBrainSegError(f"{found[stem]} and {path.name} have one name; remove one of them.")
        found[stem] = path
    return found


def find_pairs(folder: Union[Path, str]) -> list[Pair]:
    """Find the images of a folder and their label maps, sorted by name.

    They are called ``NAME_image`` and ``NAME_labels``, or ``NAME_t1`` and ``NAME_structures``, or lie under equal names
    in the folders ``images`` and ``labels``; with any ending that can be read.

    Raises:
        SEBrainSegError: there are none, or one lacks the other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SEBrainSegError(f"{folder} is no folder; name one that holds {LAYOUT}.")
    if all((folder / name).is_dir() for name in FOLDERS):
        images, labels = (_files_by_stem(folder / name) for name in FOLDERS)
    else:
        images, labels = {}, {}
        for stem, path in _files_by_stem(folder).items():
            for suffix, found in [pair for suffixes in SUFFIXES for pair in zip(suffixes, (images, labels))]:
                name = stem[: -len(suffix)]
                if not stem.endswith(suffix) or not name:
                    continue
                if name in found:
                    raise SEBrainSegError(f"{found[name]} and {path.name} are both called {name}; remove one of them.")
                found[name] = path
    if not images:
        raise SEBrainSegError(f"{folder} holds no images to train on; put there {LAYOUT}.")
    for name in sorted(set(images) ^ set(labels)):
        if name in images:
            raise SEBrainSegError(f"{images[name]} has no label map beside it; expected is {LAYOUT}.")
        raise SEBrainSegError(f"{labels[name]} has no image beside it; expected is {LAYOUT}.")
    return [Pair(name, images[name], labels[name]) for name in sorted(images)]


def is_flat(image: sitk.Image) -> bool:
    """Whether an image is 2D, or a volume of one slice."""
    return image.GetDimension() == 2 or image.GetDimension() == 3 and image.GetSize()[2] == 1


def read_pair(pair: Pair) -> tuple[sitk.Image, sitk.Image]:
    """Read an image and its label map.

    Returns:
        ``(image, labels)`` on one grid, labels as uint16.

    Raises:
        SEBrainSegError: one of them cannot be read or used, or their grids differ.
    """
    image, labels = read(pair.image), read(pair.labels)
    for path, each in ((pair.image, image), (pair.labels, labels)):
        try:
            (check_scalar if is_flat(each) else check)(each)
        except SEBrainSegError as error:
            raise SEBrainSegError(f"{path}: {error}") from None
    if not same_grid(image, labels):
        raise SEBrainSegError(
            f"The grids of {pair.image} ({_grid_text(image)}) and {pair.labels.name} ({_grid_text(labels)}) differ; "
            "resample the label map to the grid of its image."
        )
    values = sitk.GetArrayViewFromImage(labels)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535 or (values != np.floor(values)).any():
        raise SEBrainSegError(
            f"{pair.labels} is no label map: it has values that are no whole numbers from 0 to 65535."
        )
    pixels = sitk.GetArrayViewFromImage(image)
    pixels = pixels[np.isfinite(pixels)]
    if not pixels.size or pixels.min() == pixels.max():
        raise SEBrainSegError(f"All voxels of {pair.image} have the same value; remove it and its label map.")
    return image, sitk.Cast(labels, sitk.sitkUInt16)


def same_grid(image: sitk.Image, labels: sitk.Image) -> bool:
    """Whether two images have as many voxels in the same places, to a tenth of a voxel; 2D images have no place."""
    if is_flat(image) or is_flat(labels):
        return (*image.GetSize(), 1)[:3] == (*labels.GetSize(), 1)[:3]
    if image.GetSize() != labels.GetSize():
        return False
    return np.allclose(corners(image), corners(labels), rtol=0, atol=0.1 * min(image.GetSpacing()))


def _grid_text(image: sitk.Image) -> str:
    """Return a grid in words: voxels, their size, and where the first one is."""
    size, spacing = (" x ".join(f"{n:g}" for n in numbers) for numbers in (image.GetSize(), image.GetSpacing()))
    origin = ", ".join(f"{n:.4g}" for n in image.GetOrigin())
    return f"{size} voxels of {spacing} mm from ({origin})"
