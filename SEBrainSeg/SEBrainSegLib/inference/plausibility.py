"""Whether a result may be right, judged by intensities and by where and how large structures are.

A network answers to any image. What it finds in a label map, in another sequence or in a head that its header turns is
nonsense, which these checks refuse in words. Their thresholds were chosen on real T1-weighted scans, as they are and
degraded, and on nonsense; ``Testing/Benchmarks/plausibility.py`` measures both errors. A head whose left and right are
exchanged looks like any other: that cannot be seen.
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import SimpleITK as sitk

from ..analysis.remarks import out_of_proportion, ranges, whole_brain
from ..choices.parameters import Parameters
from ..choices.structures import Structure, structures
from .geometry import BRAIN_SPACING
from .intensities import finite, without_fill

_SMALLEST_HEAD = 80.0  # mm; a brain is longer in every direction


_AIR_IN_CT = -500.0  # Hounsfield units, far above air's -1000 and below any tissue


_NOISE = 0.5  # correlation of neighbouring voxels below which nothing but noise is seen; in a head it is over 0.9


MOST_OUT_OF_PROPORTION = 10  # of 31 structures; hydrocephalus, for one, concerns six


def why_none(image: sitk.Image, array: np.ndarray) -> str:
    """Return the end of a sentence that says why little brain was found, and what to do.

    Args:
        image: the volume, ``SimpleITK.Image``.
        array: its conformed voxels, ``[S, A, R]``.
    """
    sides = np.array(image.GetSize()) * image.GetSpacing()
    if sides.min() < _SMALLEST_HEAD:
        size = " x ".join(f"{side:.0f}" for side in sides)
        return f"the image is {size} mm, too small for a head; choose a scan of a whole one and check its voxel spacing"
    image = without_fill(finite(image))
    if np.percentile(sitk.GetArrayViewFromImage(image)[::2, ::2, ::2], 1) < _AIR_IN_CT:
        return "its intensities look like those of a CT; choose a T1-weighted MR scan"
    if np.corrcoef(array[1:].ravel(), array[:-1].ravel())[0, 1] < _NOISE:
        return "it looks like noise; choose a T1-weighted scan of a whole head"
    return "choose a T1-weighted scan of a whole head and check that its orientation and voxel spacing are right"


def why_unlike(volumes: dict[int, float], protocol: str) -> str:
    """Return a sentence if what was found is unlike any brain, as in a head upside down; ``""`` if it may be one.

    Parts that a scan does not show count for nothing.

    Args:
        volumes: ml by label.
        protocol: the convention of drawing.
    """
    count = len(out_of_proportion(volumes, protocol))
    if count <= MOST_OUT_OF_PROPORTION:
        return ""
    return (
        f"What was found is unlike any brain ({count} structures are far too small or large for the others); "
        "check that the scan is T1-weighted and that its header does not turn the head upside down or on its side."
    )


# Of a label map a few values are most of the image, and neighbours are alike; of a scan it takes 80, and 0.15 are.
_FEWEST_VALUES, _MOST_ALIKE = 20, 0.75


_LEAST_COSINE = 0.5  # between the directions in which a structure lies and should lie: 60 degrees


_LEAST_DISTANCE = 8  # mm from which it is told that a structure lies on the wrong side of another


_LEAST_VOLUME = 0.5  # ml of a structure whose place says something


_MISSING = 0.1  # of the volume that is expected of a structure


_MOST_MISSING = 1  # of the large structures


_SMALLER_SIDE = 0.3  # of a structure's other one, for its place to say something


_SMALLER_HEMISPHERE = 0.5  # of the larger one


_SMALLEST_BRAIN = 500.0  # ml in a head of a grown-up's size


_LARGEST_BRAIN = 2500.0  # ml, ventricles included


_GROWN_UP = 120.0  # mm along every axis


# Mean over what is labelled. In scans, thick slices and noise included, it was at least 0.87 of coronal and 0.82 of
# sagittal U-Nets, 0.83 of SD-Nets and 0.78 of DenseNets; in sequences made from T1 at most 0.77, 0.72, 0.80 and 0.80.
_LEAST_CONFIDENCE = {"unet": 0.78, "sdnet": 0.78, "densenet": 0.75}


EVERY = 4  # mm at which it is asked whether there is tissue


TISSUE = 0.1  # of bright tissue; air is darker


_NEAR = 3  # such places around the place of a structure


# A structure is cut off where its face at the scan's edge is larger than this share of that of the cube of its volume,
# and than this share of its section a millimetre further in.
_CUT, _SAME = 0.05, 0.75


_LARGE = (
    "Cerebral White Matter",
    "Cerebral Cortex",
    "Cerebellar Cortex",
    "Cerebellar White Matter",
    "Thalamus",
    "Brain Stem",
)


# Cortex goes this far (mm) from the middle of the thalami in front, behind, above and to either side; in the scans at
# hand it is at least 43. It is asked for only where the scan shows tissue at the second distance.
_LEAST_AROUND, _SHOWN = 25.0, 52.0


_CHECK = "check that it is T1-weighted and that its header does not turn the head upside down, backwards or on its side"


# What lies where, seen from what: mm towards superior and anterior in the scans at hand, and names for it.
_PLACES = (
    (("Cerebellar Cortex", "Cerebellar White Matter"), ("Thalamus",), (-41, -38)),
    (("Brain Stem",), ("Thalamus",), (-36, -9)),
    (("Caudate",), ("Thalamus",), (5, 27)),
    (("Caudate",), ("Cerebellar Cortex", "Cerebellar White Matter"), (46, 65)),
    (("Caudate",), ("Brain Stem",), (41, 36)),
)


def why_no_scan(image: sitk.Image) -> str:
    """Return a sentence if the intensities of an image are those of a label map; ``""`` if it may be a scan.

    Args:
        image: scalar volume with more than one value.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    values, counts = np.unique(voxels[::EVERY, ::EVERY, ::EVERY], return_counts=True)
    background = values[counts.argmax()]
    counts = np.sort(counts[values != background])[::-1].cumsum()
    most = int(np.searchsorted(counts, 0.9 * counts[-1])) + 1 if len(counts) else 1
    planes = voxels[::EVERY]
    neighbours = (planes[:, 1:], planes[:, :-1]), (planes[..., 1:], planes[..., :-1])
    alike = min(_share_alike(*each, background) for each in neighbours)
    if most >= _FEWEST_VALUES and alike <= _MOST_ALIKE:
        return ""
    return (
        "The image has few different values, or large parts of one value, as a label map has and no scan; "
        "choose the T1-weighted scan itself."
    )


def _share_alike(voxels: np.ndarray, neighbours: np.ndarray, background: float) -> float:
    """Return which share of the voxels has the value of its neighbour, of those where neither is background."""
    seen = (voxels != background) & (neighbours != background)
    return float((voxels == neighbours)[seen].mean()) if seen.any() else 0.0


def why_unlikely(
    labels: np.ndarray,
    array: np.ndarray,
    volumes: dict[int, float],
    confidence: Optional[float],
    parameters: Parameters,
    spacing: Sequence[float] = BRAIN_SPACING,
    protocol: Optional[str] = None,
) -> str:
    """Return a sentence on why what was found is unlikely to be right; ``""`` if it may be.

    Args:
        labels: FreeSurfer ids of a conformed array ``[S, A, R]``.
        array: its normalised intensities.
        volumes: ml by label.
        confidence: the network's mean probability of what it labels, in [0, 1]; ``None`` if it is not known.
        parameters: what was chosen.
        spacing: mm along ``[S, A, R]``.
        protocol: the convention of drawing; ``None``: that of ``parameters``. Of one that was never measured, or
            ``""``, neither sizes nor what is missing can be judged.
    """
    protocol = parameters.protocol if protocol is None else protocol
    tissue = _tissue_of(array, spacing)
    places = _places_of(labels, volumes, spacing)
    return (
        _why_misplaced(places, volumes)
        or _why_missing(places, tissue, volumes, protocol)
        or _why_not_around(labels, tissue, places, volumes, spacing)
        or _why_size(tissue, volumes)
        or _why_unsure(confidence, parameters)
        or why_unlike(volumes, protocol)
    )


def _tissue_of(array: np.ndarray, spacing: Sequence[float] = BRAIN_SPACING) -> np.ndarray:
    """Return whether normalised intensities ``[S, A, R]`` are brighter than air, every :data:`EVERY` mm."""
    places = (np.arange(0, side * mm - 1e-6, EVERY) / mm for side, mm in zip(array.shape, spacing))
    indices = (np.minimum(np.rint(each).astype(int), side - 1) for each, side in zip(places, array.shape))
    return array[np.ix_(*indices)] > TISSUE


def _places_of(
    labels: np.ndarray, volumes: dict[int, float], spacing: Sequence[float] = BRAIN_SPACING
) -> dict[int, np.ndarray]:
    """Return the centre of gravity ``(S, A, R)`` in mm of every structure that is not tiny, by label."""
    # Every second voxel will do, in an eighth of the time.
    coarse = labels[::2, ::2, ::2]
    where = np.nonzero(coarse)
    found = coarse[where]
    counts = np.bincount(found, minlength=256)
    along = [np.bincount(found, weights=2.0 * mm * index, minlength=256) for mm, index in zip(spacing, where)]
    sums = np.stack(along, axis=1)
    return {
        label: sums[label] / counts[label]
        for label, ml in volumes.items()
        if ml >= _LEAST_VOLUME and label < 256 and counts[label]
    }


def _why_not_around(
    labels: np.ndarray,
    tissue: np.ndarray,
    places: dict[int, np.ndarray],
    volumes: dict[int, float],
    spacing: Sequence[float],
) -> str:
    """Return a sentence if the cerebral cortex does not lie around the thalami; ``""`` if it does, or is not shown to.

    Args:
        labels, volumes, spacing: as of :func:`why_unlikely`.
        tissue: as of :func:`_tissue_of`.
        places: as of :func:`_places_of`.
    """
    middle = _middle(places, volumes, _labels_named("Thalamus"))
    cortex = np.isin(labels[::2, ::2, ::2], _labels_named("Cerebral Cortex"))
    if middle is None or not cortex.any():
        return ""
    sides = (
        ("above", 0, 1),
        ("in front of", 1, 1),
        ("behind", 1, -1),
        ("to the right of", 2, 1),
        ("to the left of", 2, -1),
    )
    for where, axis, sign in sides:
        planes = (
            2 * spacing[axis] * np.flatnonzero(cortex.any(axis=tuple(other for other in range(3) if other != axis)))
        )
        shown = middle.copy()
        shown[axis] += sign * _SHOWN
        if (sign * (planes - middle[axis])).max() < _LEAST_AROUND and _tissue_at(tissue, shown):
            return (
                f"What was found does not lie as in a person: no cerebral cortex lies {where} the thalamus, though the "
                f"scan shows where it should be; {_CHECK}."
            )
    return ""


def _labels_named(*names: str) -> list[int]:
    """Return the labels of the structures of these names, of either side."""
    return [structure.label for structure in structures() if structure.unsided_name in names]


def _middle(places: dict[int, np.ndarray], volumes: dict[int, float], labels: list[int]) -> Optional[np.ndarray]:
    """Return the common centre of gravity of structures; ``None`` if none of them has a place."""
    there = [label for label in labels if label in places]
    if not there:
        return None
    return np.average([places[label] for label in there], axis=0, weights=[volumes[label] for label in there])


def _why_misplaced(places: dict[int, np.ndarray], volumes: dict[int, float]) -> str:
    """Return a sentence if structures do not lie as in a person; ``""`` if they do, or too few were found.

    Args:
        places: as of :func:`_places_of`.
        volumes: ml by label.
    """
    for names, others, (up, ahead) in _PLACES:
        here, there = (_middle(places, volumes, _labels_named(*each)) for each in (names, others))
        if here is not None and there is not None and _points_elsewhere(here - there, (up, ahead, 0)):
            return _sentence_on_place(
                names[0], others[0], float(here[0] - there[0]), float(here[1] - there[1]), up, ahead
            )
    # Of the half of a head, what is said of the other side is a rim of nothing that counts.
    pairs = [
        (left, right)
        for left, right in _pairs_of_labels()
        if left in places and right in places and _are_similar(volumes[left], volumes[right])
    ]
    across = [places[right] - places[left] for left, right in pairs]
    if across and _points_elsewhere(np.mean(across, axis=0), (0, 0, 1)):
        return (
            "What was found does not lie as in a person: structures of the left are not on the left of those of the "
            f"right; {_CHECK}."
        )
    return ""


def _are_similar(ml: float, other: float) -> bool:
    """Whether the volumes of two sides are of one order."""
    return min(ml, other) > _SMALLER_SIDE * max(ml, other)


def _points_elsewhere(found: np.ndarray, expected: tuple[float, float, float]) -> bool:
    """Whether two directions differ by far."""
    length = np.linalg.norm(found) * np.linalg.norm(expected)
    return bool(np.dot(found, expected) < _LEAST_COSINE * length)


def _sentence_on_place(
    name: str, other: str, up: float, ahead: float, expected_up: float, expected_ahead: float
) -> str:
    """Return the sentence for a structure that lies in another direction than expected, in mm seen from another."""
    words = {"Cerebellar Cortex": "cerebellum", "Caudate": "caudate nuclei"}
    name, other = (words.get(each, each.lower()) for each in (name, other))
    amiss = []
    for found, expected, positive, negative in (
        (up, expected_up, "above", "below"),
        (ahead, expected_ahead, "in front of", "behind"),
    ):
        if abs(expected) > _LEAST_DISTANCE and found * expected < 0:
            amiss.append(positive if found > 0 else negative)
    verb = "lie" if name.endswith("nuclei") else "lies"
    return (
        f"What was found does not lie as in a person: the {name} {verb} {' and '.join(amiss) or 'beside'} the {other}; "
        f"{_CHECK}."
    )


def _pairs_of_labels() -> list[tuple[int, int]]:
    """Return left and right label of every structure that has sides."""
    sides: dict[str, dict[str, int]] = {}
    for structure in structures():
        if structure.side:
            sides.setdefault(structure.unsided_name, {})[structure.side] = structure.label
    return [(each["left"], each["right"]) for each in sides.values()]


def _why_missing(places: dict[int, np.ndarray], tissue: np.ndarray, volumes: dict[int, float], protocol: str) -> str:
    """Return a sentence if large structures, or most of a hemisphere, were not found where the scan shows tissue.

    Args:
        places: as of :func:`_places_of`.
        tissue: as of :func:`_tissue_of`.
        volumes: ml by label.
        protocol: the convention of drawing.
    """
    expected = {label: known for (drawn, label), known in ranges().items() if drawn == protocol and known.place}
    shifts = [place - expected[label].place for label, place in places.items() if label in expected]
    if not shifts:
        return ""
    shift, whole = np.median(shifts, axis=0), whole_brain(volumes, protocol)

    def is_shown(label: int) -> bool:
        return _tissue_at(tissue, shift + expected[label].place)

    def is_missing(structure: Structure) -> bool:
        known = expected.get(structure.label)
        if known is None or volumes[structure.label] >= _MISSING * whole * (known.smallest + known.largest) / 2:
            return False
        return is_shown(structure.label)

    missing = [each for each in structures() if each.unsided_name in _LARGE and is_missing(each)]
    ml = dict.fromkeys(("left", "right"), 0.0)
    for structure in structures():
        if structure.side:
            ml[structure.side] += volumes[structure.label]
    smaller = min(ml, key=lambda side: ml[side])
    sided = [each.label for each in structures() if each.unsided_name.startswith("Cerebral") and each.side == smaller]
    if min(ml.values()) < _SMALLER_HEMISPHERE * max(ml.values()) and any(
        label in expected and is_shown(label) for label in sided
    ):
        return (
            f"Of the {smaller} hemisphere only {min(ml.values()):.0f} ml were found, of the other one "
            f"{max(ml.values()):.0f} ml, though the scan shows both; {_CHECK}."
        )
    if len(missing) > _MOST_MISSING:
        names = ", ".join(each.name for each in missing)
        return f"Not found, though the scan shows where they should be: {names}; {_CHECK}."
    return ""


def _tissue_at(tissue: np.ndarray, place: np.ndarray) -> bool:
    """Whether a scan shows tissue around a place in mm, all of which is in the scan."""
    low, high = (np.rint(place / EVERY).astype(int) + reach for reach in (-_NEAR, _NEAR + 1))
    if (low < 0).any() or (high > tissue.shape).any():
        return False
    return bool(tissue[tuple(map(slice, low, high))].mean() > 0.5)


def _why_size(tissue: np.ndarray, volumes: dict[int, float]) -> str:
    """Return a sentence if there is little brain in a head of a grown-up's size, or more than anyone has."""
    total = sum(volumes.values())
    if total > _LARGEST_BRAIN:
        return f"{total:.0f} ml of brain were found, more than anyone has; check the voxel spacing in its header."
    sides = [
        EVERY * np.ptp(np.flatnonzero(tissue.mean(axis=tuple(other for other in range(3) if other != axis)) > 0.01))
        for axis in range(3)
        if tissue.any()
    ]
    if total >= _SMALLEST_BRAIN or not sides or min(sides) < _GROWN_UP:
        return ""
    return f"Only {total:.0f} ml of brain were found in a head of a grown-up's size; {_CHECK}."


def _why_unsure(confidence: Optional[float], parameters: Parameters) -> str:
    """Return a sentence if a network was less sure of what it labels than in any scan; ``""`` if not.

    Args:
        confidence: see :func:`why_unlikely`.
        parameters: the network; how sure those are that users trained nobody knows.
    """
    if confidence is None or parameters.model or confidence >= _LEAST_CONFIDENCE.get(parameters.architecture, 0.0):
        return ""
    return f"The network was unsure of most of what it found (mean confidence {confidence:.2f}); {_CHECK}."


def cut_off(labels: sitk.Image, table: tuple[Structure, ...]) -> tuple[int, ...]:
    """Return the labels of structures that end at the edge of the scan, where they may go on.

    Args:
        labels: label image on the scan's own grid.
        table: what its labels are.
    """
    voxels, spacing = sitk.GetArrayViewFromImage(labels), labels.GetSpacing()[::-1]
    # Plane by plane: counting makes numbers of 8 bytes of all.
    length = int(voxels.max()) + 1
    counts = sum((np.bincount(plane.ravel(), minlength=length) for plane in voxels), np.zeros(length, np.intp))
    limits = _CUT * (counts * np.prod(spacing)) ** (2 / 3)
    cut = np.zeros(len(counts), bool)
    for axis in range(voxels.ndim):
        # The outermost millimetre may have no labels, as it lies between two planes of the conformed volume.
        depth = min(int(np.ceil(1 / spacing[axis])), (voxels.shape[axis] - 1) // 2)
        area = np.prod(spacing) / spacing[axis]
        for planes in ((depth, 2 * depth), (-1 - depth, -1 - 2 * depth)):
            face, within = (
                area * np.bincount(np.take(voxels, plane, axis=axis).ravel(), minlength=len(counts)) for plane in planes
            )
            # What just touches the edge ends there, and is much smaller than a little further in.
            cut |= (face > limits) & (face > _SAME * within)
    return tuple(each.label for each in table if each.label < len(counts) and cut[each.label])
