"""Toy heads of boxes for the tests of training, written as a T1 scan with labels or as a label map of a whole head."""

import gzip
import struct

import numpy as np
import SimpleITK as sitk

from SEBrainSegLib.networks.classes import class_of_label
from SEBrainSegLib.training.pairs import Pair

# World extent of the toy head (R, A, S in mm), each side of another length.
FIRST, LAST = np.array([-14, -17, -11]), np.array([14, 15, 12])


# FreeSurfer ids as boxes (first and last voxel in R, A, S): left is at negative R. Later boxes cover earlier ones.
BOXES = (
    (502, (-13, -15, -10), (13, 13, 11)),
    (2, (-11, -12, -8), (-1, 11, 9)),
    (41, (1, -12, -8), (11, 11, 9)),
    (3, (-11, 6, -8), (-1, 11, 9)),
    (42, (1, 6, -8), (11, 11, 9)),
    (16, (0, -12, -10), (0, 2, -4)),
    (8, (-11, -12, -8), (-1, -8, -3)),
    (47, (1, -12, -8), (11, -8, -3)),
    (10, (-6, -4, -2), (-2, 1, 3)),
    (49, (2, -4, -2), (6, 1, 3)),
    (12, (-9, -2, -2), (-7, 4, 2)),
    (51, (7, -2, -2), (9, 4, 2)),
    (136, (-5, -4, 4), (-2, 2, 6)),
    (163, (2, -4, 4), (5, 2, 6)),
    (25, (-10, 0, 7), (-8, 3, 8)),
    (24, (-3, -11, 8), (3, -9, 9)),
    (255, (-1, 3, 5), (1, 4, 7)),
)


# What the ids that are no structure themselves count as.
COUNTED_AS = {136: 4, 163: 43, 25: 2, 24: 0, 502: 0}


LEFT_IDS, RIGHT_IDS = (2, 3, 8, 10, 12, 4), (41, 42, 47, 49, 51, 43)


# NIfTI's IJK-to-RAS axes: columns are the world directions of i, j and k.
ORIENTATIONS = {
    "LAS": np.array([[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "LIA": np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "RAS": np.eye(3, dtype=int),
    "PSR": np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]),
}


WHOLE_HEAD, STRIPPED = True, False


def label_at(r, a, s, whole_head):
    """FreeSurfer id at world positions; a stripped brain has nothing outside and no ids of the label maps."""
    labels = np.zeros(np.broadcast(r, a, s).shape, np.int16)
    for label, first, last in BOXES:
        inside = (r >= first[0]) & (r <= last[0]) & (a >= first[1]) & (a <= last[1]) & (s >= first[2]) & (s <= last[2])
        labels[inside] = label
    if not whole_head:
        for label, other in COUNTED_AS.items():
            labels[labels == label] = other
    return labels


def intensity_at(r, a, s):
    """Left brain 200, right brain 100, nothing else, so that an image tells its own side."""
    brain = ~np.isin(label_at(r, a, s, STRIPPED), (0, 255))
    return np.where(brain, np.where(r < 0, 200, 100), 0).astype(np.int16)


def write(path, value_at, orientation):
    """Write a volume of 1 mm voxels: world = axes @ (i, j, k) + origin."""
    axes = ORIENTATIONS[orientation]
    # World index range of each array axis: from the end where it starts.
    start = np.array([FIRST[w] if axes[w].sum() > 0 else LAST[w] for w in range(3)])
    size = np.abs(axes).T @ (LAST - FIRST + 1)
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"))
    world = np.einsum("wi,i...->w...", axes, ijk) + start[:, None, None, None]
    image = sitk.GetImageFromArray(np.ascontiguousarray(value_at(*world).transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1.0, 1.0])
    image.SetDirection((lps @ axes).ravel().tolist())
    image.SetOrigin((lps @ start).tolist())
    sitk.WriteImage(image, str(path))
    # What the file itself says (bytes 280 on: the rows of sform), read without an imaging library.
    with gzip.open(path) as file:
        rows = np.array(struct.unpack("<12f", file.read(328)[280:])).reshape(3, 4)
    np.testing.assert_array_equal(rows, np.column_stack((axes, start)))


def write_scan(folder, name, orientation="LAS"):
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}_t1.nii.gz", intensity_at, orientation)
    write(folder / f"{name}_structures.nii.gz", lambda *w: label_at(*w, STRIPPED).astype(np.uint8), orientation)
    return Pair(name, folder / f"{name}_t1.nii.gz", folder / f"{name}_structures.nii.gz")


def write_head(folder, name, orientation="LIA"):
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}.nii.gz", lambda *w: label_at(*w, WHOLE_HEAD), orientation)
    return folder / f"{name}.nii.gz"


def world_grid(margin=0):
    """World coordinates r, a, s of the voxels of an array indexed [S, A, R], in that order of axes."""
    s, a, r = np.meshgrid(*(np.arange(FIRST[w] - margin, LAST[w] + margin + 1) for w in (2, 1, 0)), indexing="ij")
    return r, a, s


def expected_classes(margin=0, whole_head=STRIPPED):
    labels = label_at(*world_grid(margin), whole_head)
    classes = np.zeros(labels.shape, np.uint8)
    for label, index in class_of_label().items():
        classes[labels == label] = index
    for label, other in COUNTED_AS.items():
        classes[labels == label] = class_of_label().get(other, 0)
    classes[labels == 255] = 255
    return classes


def index_of(r, a, s, margin=0):
    """Array index (S, A, R) of a world position."""
    return np.array([s, a, r]) - FIRST[::-1] + margin
