"""Folders of DICOM: which volumes are in them, how one is chosen, and how the slices of one lie."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Union

import numpy as np
import SimpleITK as sitk

from ..errors import SEBrainSegError
from ..inference.geometry import corners
from . import orientation

# How far slices may be from where they should be, in mm: rounding in their headers, but no missing slice.
_TOLERANCE = 0.1


POSITION, ORIENTATION, DESCRIPTION, INSTANCE = "0020|0032", "0020|0037", "0008|103e", "0008|0018"


# What tells volumes of one series apart, in words and with their unit.
_DIFFERING_TAGS = {
    "0018|0081": ("echoes", "echo time {} ms"),
    "0018|0086": ("echoes", "echo {}"),
    "0008|0008": ("kinds of image", "{}"),
    "0018|0082": ("inversion times", "inversion time {} ms"),
    "0020|0100": ("time points", "time point {}"),
    "0018|1060": ("time points", "trigger time {} ms"),
    "0020|0012": ("acquisitions", "acquisition {}"),
    "0018|1314": ("flip angles", "flip angle {} degrees"),
}


_MOST_LISTED = 12  # volumes in a message


@dataclass(frozen=True)
class Slice:
    """A DICOM file: its path, where its first pixel lies (LPS, mm), its two axes, and the tags that it has."""

    path: str
    position: tuple
    axes: tuple
    tags: dict = field(compare=False)


@dataclass(frozen=True)
class Volume:
    """Slices that belong together.

    Attributes:
        name: what ``--series`` takes: the series' UID, with a number behind it if there are several of them in it.
        slices: a tuple of :class:`Slice`.
        description: in words.
        kind: what there are several of in its series, in the plural; ``""`` if it is the only one.
    """

    name: str
    slices: tuple
    description: str
    kind: str = ""


def series_of(folder: Union[str, Path]) -> tuple[str, ...]:
    """Return the UIDs of the DICOM series in a folder."""
    return sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))


def _slice_of_file(path):
    """Read the header of a DICOM file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise SEBrainSegError(f"{path} is a damaged DICOM file; export its series again.") from None
    tags = {key: reader.GetMetaData(key).strip(" \0") for key in reader.GetMetaDataKeys()}
    return Slice(path, _rounded_numbers(tags, POSITION, 3), _rounded_numbers(tags, ORIENTATION, 6), tags)


def _rounded_numbers(tags, key, count):
    """The values of a tag, rounded to what headers are true to; ``()`` if it has none."""
    try:
        values = tuple(round(float(value), 4) for value in tags.get(key, "").split("\\"))
    except ValueError:
        return ()
    return values if len(values) == count else ()


def _volumes_of(folder, series):
    """Return the volumes of a series, a list of :class:`Volume`.

    Raises:
        SEBrainSegError: two slices lie in one place, and nothing tells what they are.
    """
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series)
    # A file that was copied is there once.
    slices = list({each.tags.get(INSTANCE, each.path): each for each in map(_slice_of_file, files)}.values())
    about = [slices[0].tags.get(DESCRIPTION, "")]
    by_axes: dict[tuple, list] = {}
    for each in slices:
        by_axes.setdefault(tuple(np.round(each.axes, 3)), []).append(each)
    groups = [
        (kind, [*about, *words], part)
        for same in by_axes.values()
        for kind, words, part in _split_by_tags(same, folder)
    ]
    if len(by_axes) > 1:
        groups = [(kind or "orientations", words, part) for kind, words, part in groups]
    volumes = []
    for place, (kind, words, part) in enumerate(groups, start=1):
        count = f"{len(part)} image{'s' if len(part) > 1 else ''}"
        name = series if len(groups) == 1 else f"{series}:{place}"
        volumes.append(Volume(name, tuple(part), ", ".join(filter(None, [*words, count])), kind))
    return volumes


def _split_by_tags(slices, folder):
    """Return ``(kind, words, slices)`` for every volume among slices of one orientation."""
    places = Counter(each.position for each in slices)
    repeated = max(places.values())
    if repeated == 1 or () in places:
        return [("", [], slices)]
    varying = [key for key in _DIFFERING_TAGS if len({each.tags.get(key) for each in slices}) > 1]
    for count in range(1, len(varying) + 1):
        for keys in combinations(varying, count):
            groups: dict[tuple, list] = {}
            for each in slices:
                groups.setdefault(tuple(each.tags.get(key, "?") for key in keys), []).append(each)
            alone = all(len({each.position for each in group}) == len(group) for group in groups.values())
            if alone and len(groups) == repeated:
                return [
                    (
                        _DIFFERING_TAGS[keys[0]][0],
                        [_DIFFERING_TAGS[key][1].format(value) for key, value in zip(keys, values)],
                        group,
                    )
                    for values, group in sorted(groups.items(), key=lambda item: _sort_key(item[0]))
                ]
    raise SEBrainSegError(
        f"{folder} holds {repeated} slices in the same place that their headers do not tell apart; "
        "export one volume to a folder of its own."
    )


def _sort_key(values):
    """What sorts values of tags: numbers by size, before words."""
    return [(0, float(value), "") if value.replace(".", "", 1).isdigit() else (1, 0.0, value) for value in values]


def _choose(folder, series):
    """Return the volume of a folder that a user named, or the only one there is.

    Args:
        folder: its path.
        series: the name of a :class:`Volume`, or ``""``.

    Raises:
        SEBrainSegError: there is no such volume, or none was named and there are several.
    """
    uids = series_of(folder)
    if not uids:
        raise SEBrainSegError(f"{folder} holds no DICOM series; name a folder of DICOM slices or an image file.")
    wanted = [uid for uid in uids if series == uid or series.startswith(f"{uid}:")]
    if series and not wanted:
        raise SEBrainSegError(f"{folder} has no series {series}; there are {_list_of_series(folder, uids)}.")
    if len(uids) > 1 and not wanted:
        raise SEBrainSegError(
            f"{folder} holds {len(uids)} DICOM series: {_list_of_series(folder, uids)}; choose one with --series UID "
            "(in Python series=)."
        )
    volumes = _volumes_of(folder, (wanted or uids)[0])
    named = [each for each in volumes if each.name == series]
    if named or len(volumes) == 1 and ":" not in series:
        return (named or volumes)[0]
    kinds = volumes[0].kind
    raise SEBrainSegError(
        f"{folder} holds {len(volumes)} {kinds} under one DICOM series: "
        f"{_enumeration(each.name + ' (' + each.description + ')' for each in volumes)}; "
        f"choose one with --series {volumes[0].name} or its like (in Python series=)."
    )


def _list_of_series(folder, uids):
    """Write the series of a folder with what is known of each."""
    words = []
    for uid in uids:
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        about = _slice_of_file(files[0]).tags.get(DESCRIPTION, "")
        count = f"{len(files)} image{'s' if len(files) > 1 else ''}"
        words.append(f"{uid} ({', '.join(filter(None, [about, count]))})")
    return _enumeration(words)


def _enumeration(names):
    """Write names with commas, the first few of many."""
    names = list(names)
    return ", ".join(
        names if len(names) <= _MOST_LISTED else [*names[:_MOST_LISTED], f"and {len(names) - _MOST_LISTED} more"]
    )


def read(folder: Union[str, Path], series: str = "") -> sitk.Image:
    """Read a volume of a folder of DICOM slices, straightened if its slices are slanted.

    Args:
        folder: its path.
        series: the name of a :class:`Volume`; ``""``: the only one.

    Returns:
        ``SimpleITK.Image``.

    Raises:
        SEBrainSegError: see :func:`_choose`; a slice is missing or damaged, or the slices do not lie in a row.
    """
    volume = _choose(folder, series)
    slices = list(volume.slices)
    if len(slices) == 1:
        return _read_single(slices[0].path, folder)
    stacked = all(each.position and each.axes for each in slices)
    if stacked:
        row, column = np.array(slices[0].axes).reshape(2, 3)
        normal = np.cross(row, column)
        slices.sort(key=lambda each: float(normal @ each.position))
    image = _read_slices([each.path for each in slices], folder)
    if not stacked:
        image.SetMetaData(orientation.UNSTATED, f"The DICOM slices in {folder} do not say which way the head lies")
        return image
    positions = np.array([each.position for each in slices])
    step = _step_between_slices(positions, normal, folder)
    image.SetOrigin(positions[0].tolist())
    spacing = [*image.GetSpacing()[:2], float(np.linalg.norm(step))]
    image.SetSpacing(spacing)
    slanted = np.linalg.norm(step - normal * (normal @ step)) * (len(slices) - 1) > _TOLERANCE
    last = step / spacing[2] if slanted else normal
    image.SetDirection(np.column_stack((row, column, last)).ravel().tolist())
    if slanted:
        angle = np.degrees(np.arccos(min(1.0, float(normal @ last))))
        image = _straighten(image, normal)
        orientation.add_note(
            image, f"The slices are slanted by {angle:.1f} degrees (gantry tilt) and were set straight."
        )
    return image


def _read_single(path, folder):
    """Read the only file of a series, which may hold many slices."""
    try:
        image = sitk.ReadImage(path)
    except RuntimeError:
        raise SEBrainSegError(f"The DICOM series in {folder} cannot be read as one volume; export it again.") from None
    orientation.mark_unstated(image, path)
    return image


def _read_slices(paths, folder):
    """Read slices, in this order, as one volume."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(paths)
    try:
        return reader.Execute()
    except RuntimeError:
        raise SEBrainSegError(f"The DICOM series in {folder} cannot be read as one volume; export it again.") from None


def _step_between_slices(positions, normal, folder):
    """Return the way from one slice to the next, in mm.

    Raises:
        SEBrainSegError: it is not the same all along.
    """
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.ptp(np.diff(positions @ normal)) > _TOLERANCE:
        raise SEBrainSegError(f"The slices in {folder} are unevenly spaced: a slice is missing; export all of them.")
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - expected, axis=1).max() > max(_TOLERANCE, 0.05 * np.linalg.norm(step)):
        raise SEBrainSegError(
            f"The slices in {folder} do not lie in a row: their positions drift sideways; "
            "choose a series that was not moved, or resample it to a volume first."
        )
    return step


def _straighten(image, normal):
    """Return a volume of slanted slices on a straight grid that covers it.

    Args:
        image: its third axis is not at right angles to its slices.
        normal: a unit vector (LPS) that is.
    """
    axes = np.array(image.GetDirection()).reshape(3, 3)
    axes[:, 2] = normal
    spacing = np.array(image.GetSpacing())
    spacing[2] *= float(normal @ np.array(image.GetDirection()).reshape(3, 3)[:, 2])
    along = corners(image) @ axes
    size = np.ceil(np.ptp(along, axis=0) / spacing - 1e-3).astype(int) + 1
    return sitk.Resample(
        image,
        size.tolist(),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        (axes @ along.min(axis=0)).tolist(),
        spacing.tolist(),
        axes.ravel().tolist(),
        float(sitk.GetArrayViewFromImage(image).min()),
        image.GetPixelID(),
    )
