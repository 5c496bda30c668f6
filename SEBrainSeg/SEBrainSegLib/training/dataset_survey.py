"""What a folder of images and label maps holds, and what follows from it: classes, grid, intensities, validation."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
import SimpleITK as sitk

from ..choices.structures import IGNORED, Structure
from ..choices.vocabulary import slice_axis
from ..errors import SEBrainSegError
from .pairs import Pair, is_flat, read_pair

# Intensities below this in every scan are Hounsfield units of air: no other usual unit goes there.
AIR = -500


SMALLEST_WINDOW = 100.0  # Hounsfield units


INTENSITIES = 20000  # of labelled voxels, kept of a scan


class PairSurvey(NamedTuple):
    """What is known of one pair before it is trained on.

    Attributes:
        spacing: mm along ``[S, A, R]``; ``None`` of a 2D image.
        counts: voxels by label.
        lowest: the intensity that 1 % of the voxels do not reach.
        intensities: of some labelled voxels.
    """

    pair: Pair
    size: tuple[int, ...]
    spacing: Optional[tuple[float, float, float]]
    counts: dict[int, int]
    lowest: float
    intensities: np.ndarray


def survey_pair(pair: Pair) -> PairSurvey:
    """Return the :class:`PairSurvey` of a pair; raises as :func:`~.pairs.read_pair`."""
    image, labels = read_pair(pair)
    pixels, values = (sitk.GetArrayViewFromImage(each).ravel() for each in (image, labels))
    counts = np.bincount(values)
    labelled = pixels[values > 0]
    return PairSurvey(
        pair,
        image.GetSize(),
        None if is_flat(image) else spacing_of(image),
        {int(label): int(counts[label]) for label in np.flatnonzero(counts)},
        float(np.nanpercentile(pixels[:: max(1, len(pixels) // 1000000)], 1)),
        np.array(labelled[:: max(1, len(labelled) // INTENSITIES)], dtype=np.float32),
    )


def spacing_of(image: sitk.Image) -> tuple[float, float, float]:
    """Return the voxel size of a volume along ``[S, A, R]``, of the image axes nearest to these."""
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    along = {int(np.argmax(direction[:, axis])): spacing for axis, spacing in enumerate(image.GetSpacing())}
    superior, anterior, right = (float(along.get(world, min(image.GetSpacing()))) for world in (2, 1, 0))
    return superior, anterior, right


def ignored_label(
    surveys: Sequence[PairSurvey], table: Sequence[Structure], chosen: Optional[int] = None
) -> Optional[int]:
    """Return the label that counts nowhere: ``chosen``, or 255 if it occurs and is in no table, or ``None``.

    Raises:
        SEBrainSegError: the chosen one is in the table.
    """
    known = {structure.label for structure in table}
    if chosen is not None and chosen in known:
        raise SEBrainSegError(f"Label {chosen} is in the table and cannot be ignored; remove its row, or --ignore.")
    if chosen is not None:
        return chosen
    return IGNORED if IGNORED not in known and any(IGNORED in each.counts for each in surveys) else None


def check_labels(surveys: Sequence[PairSurvey], table: Sequence[Structure], ignored: Optional[int]) -> None:
    """Refuse labels outside of the table.

    Raises:
        SEBrainSegError: there are some.
    """
    known = {0, ignored} | {structure.label for structure in table}
    for each in surveys:
        unknown = sorted(set(each.counts) - known)
        if unknown:
            count = each.counts[unknown[0]]
            raise SEBrainSegError(
                f"{each.pair.labels} has label {unknown[0]} ({count:,} voxels), which is not in the table of "
                "structures; add a row for it, or leave it out of the training with --ignore."
            )


def check_classes(training: Sequence[PairSurvey], table: Sequence[Structure]) -> None:
    """Refuse structures that no training scan has.

    Raises:
        SEBrainSegError: there are some.
    """
    empty = [structure for structure in table if not any(structure.label in each.counts for each in training)]
    if empty:
        names = ", ".join(f"{structure.name} (label {structure.label})" for structure in empty[:5])
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise SEBrainSegError(
            f"No training scan has a voxel of {names}{more}; remove the row from the table or add such a scan."
        )


def are_flat(surveys: Sequence[PairSurvey]) -> bool:
    """Whether the images are 2D.

    Raises:
        SEBrainSegError: some are and some are not.
    """
    flat = [each for each in surveys if each.spacing is None]
    if flat and len(flat) < len(surveys):
        solid = next(each for each in surveys if each.spacing is not None)
        raise SEBrainSegError(f"{flat[0].pair.image} is 2D and {solid.pair.image} is 3D; train on one or the other.")
    return bool(flat)


def median_spacing(surveys: Sequence[PairSurvey], view: str) -> tuple[float, float, float]:
    """Return the grid to train on, mm along ``[S, A, R]``: the median voxel, with square pixels in a slice."""
    spacing = np.median([each.spacing for each in surveys if each.spacing], axis=0)
    in_plane = [axis for axis in range(3) if axis != slice_axis(view)]
    spacing[in_plane] = spacing[in_plane].min()
    superior, anterior, right = (round(float(value), 3) for value in spacing)
    return superior, anterior, right


def hounsfield_window(surveys: Sequence[PairSurvey]) -> Optional[tuple[float, float]]:
    """Return the window for data in Hounsfield units, ``None`` for others.

    Units are absolute if every scan has air in them. The window then spans what the labelled voxels have, but for half
    a percent at either end, and half as much again at both ends, so that the surroundings keep their contrast.
    """
    if not all(each.lowest < AIR for each in surveys):
        return None
    low, high = np.percentile(np.concatenate([each.intensities for each in surveys]), (0.5, 99.5))
    margin = max(0.5 * (high - low), 0.5 * (SMALLEST_WINDOW - (high - low)))
    return float(round(low - margin)), float(round(high + margin))


def split(
    surveys: Sequence[PairSurvey], validation: Optional[Sequence[str]], seed: int
) -> tuple[list[PairSurvey], list[PairSurvey]]:
    """Divide the scans into those to train on and those to validate with.

    Args:
        surveys: of all scans.
        validation: names of scans, or a number of scans as the only word; ``None``: a fifth, at least one.
        seed: draws the scans where no names are given; the last scan to have a structure is left to the training.

    Returns:
        ``(training, validation)``.

    Raises:
        SEBrainSegError: there is no such scan, or none is left to train on.
    """
    names = [each.pair.name for each in surveys]
    words = validation or []
    if words and not (len(words) == 1 and words[0].isdigit() and words[0] not in names):
        unknown = sorted(set(words) - set(names))
        if unknown:
            raise SEBrainSegError(f"There is no scan '{unknown[0]}' to validate with; choose of {', '.join(names)}.")
        held_out = set(words)
    else:
        count = int(words[0]) if words else max(1, round(len(surveys) / 5))
        held_out = _draw_validation(surveys, count, seed)
    training = [each for each in surveys if each.pair.name not in held_out]
    if not training:
        raise SEBrainSegError(
            f"All {len(surveys)} scans are for the validation and none for training; add scans, or name fewer with "
            "--validation (0 for none)."
        )
    return training, [each for each in surveys if each.pair.name in held_out]


def _draw_validation(surveys: Sequence[PairSurvey], count: int, seed: int) -> set[str]:
    """Draw the names of ``count`` scans, fewer if the others would lack a structure."""
    if count >= len(surveys):
        return {each.pair.name for each in surveys}
    drawn: set[str] = set()
    left = {each.pair.name: set(each.counts) for each in surveys}
    for number in np.random.default_rng(seed).permutation(len(surveys)):
        name = surveys[number].pair.name
        others = [labels for other, labels in left.items() if other != name]
        if len(drawn) < count and left[name] <= set.union(*others):
            drawn.add(name)
            del left[name]
    return drawn


def report(
    training: list[PairSurvey],
    validation: list[PairSurvey],
    table: Sequence[Structure],
    ignored: Optional[int],
) -> list[str]:
    """Return what was found as lines of text: scans, labels, class frequencies and the ignored label."""
    surveys = training + validation
    sizes = sorted({each.size for each in surveys}, key=np.prod)
    size = " to ".join(" x ".join(map(str, size)) for size in dict.fromkeys((sizes[0], sizes[-1])))
    kind = "2D images" if surveys[0].spacing is None else "volumes"
    lines = [f"{len(surveys)} {kind} with labels, {size}: {len(training)} to train on, {len(validation)} to validate."]
    if validation:
        lines.append(f"Validation: {', '.join(each.pair.name for each in validation)}.")
    total = sum(sum(each.counts.values()) for each in training)

    def row(label: int, name: str) -> str:
        count = sum(each.counts.get(label, 0) for each in training)
        holding = sum(label in each.counts for each in training)
        return f"{label:>7}  {name:<32} {count:>14,} {count / total:>10.4%} {holding:>6}"

    lines.append(f"{'label':>7}  {'name':<32} {'voxels':>14} {'frequency':>10} {'scans':>6}")
    lines.append(row(0, "background"))
    lines += [row(structure.label, structure.name) for structure in table]
    lines.append("No label is ignored." if ignored is None else f"Ignored:\n{row(ignored, 'ignored')}")
    return lines
