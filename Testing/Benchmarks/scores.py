"""What the benchmarks share: labelled scans, the measures of agreement with their labels, the file that keeps them."""

import csv
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SEBrainSeg"))

from SEBrainSegLib import SEBrainSegError, segment  # noqa: E402
from SEBrainSegLib.choices.parameters import Parameters  # noqa: E402
from SEBrainSegLib.choices.structures import IGNORED, structures  # noqa: E402
from SEBrainSegLib.files.atomic import replaced_whole
from SEBrainSegLib.networks import bundled  # noqa: E402

COLUMNS = ("network", "protocol", "scan", "structure", "dice", "hausdorff95_mm", "model_sha256", "scan_sha256")


class Scan(NamedTuple):
    """A scan and its labels: ``NAME_t1.nii.gz`` and ``NAME_structures.nii.gz`` of one folder."""

    name: str
    image_path: Path
    labels_path: Path

    def read(self) -> tuple[sitk.Image, np.ndarray]:
        """Return the image and the array of its labels, uint8.

        Raises:
            SEBrainSegError: a file is unreadable, or the labels are no FreeSurfer ids of the structures.
        """
        image, labels = (read(path) for path in (self.image_path, self.labels_path))
        array = sitk.GetArrayFromImage(labels)
        truth = array.astype(np.uint8)
        if (truth != array).any() or not np.isin(truth, [structure.label for structure in structures()]).any():
            raise SEBrainSegError(f"{self.labels_path} holds other values than the FreeSurfer ids of the structures.")
        return image, truth

    def checksum(self) -> str:
        """Return a checksum of both files."""
        return digits(self.image_path.read_bytes() + self.labels_path.read_bytes())


def digits(content: bytes) -> str:
    """Return the first 16 digits of the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def model_checksum(network: Parameters) -> str:
    """Return a checksum of the files of a choice of bundled networks."""
    listed = bundled.checksums()
    return digits("".join(listed[f"{name}.pt"] for name in network.networks).encode())


def read(path: Path) -> sitk.Image:
    """Read an image or raise :class:`SEBrainSegError`."""
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError:
        raise SEBrainSegError(f"{path} cannot be read as an image.") from None


def grid(path: Path) -> tuple[tuple, tuple]:
    """Return the size of an image, and its spacing, origin and direction in one tuple, without reading the voxels."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise SEBrainSegError(f"{path} cannot be read as an image.") from None
    return reader.GetSize(), reader.GetSpacing() + reader.GetOrigin() + reader.GetDirection()


def find_scans(folders: Sequence[Path], names: Optional[Sequence[str]] = None) -> list[Scan]:
    """Return every :class:`Scan` of some folders, or those named; all are on the grid of their labels.

    Raises:
        SEBrainSegError: a folder has no scan, a scan no labels on its grid, a name no scan or more than one.
    """
    scans = {}
    for folder in folders:
        paths = sorted(Path(folder).glob("*_t1.nii.gz"))
        if not paths:
            raise SEBrainSegError(f"{folder} holds no NAME_t1.nii.gz with NAME_structures.nii.gz.")
        for path in paths:
            name = path.name[: -len("_t1.nii.gz")]
            if names and name not in names:
                continue
            if name in scans:
                raise SEBrainSegError(f"{scans[name].image_path} and {path} have one name; rename one of them.")
            scans[name] = Scan(name, path, path.with_name(f"{name}_structures.nii.gz"))
    missing = [name for name in names or () if name not in scans]
    if missing:
        raise SEBrainSegError(f"There is no scan {missing[0]}_t1.nii.gz in the folders given.")
    for scan in scans.values():
        if not scan.labels_path.exists():
            raise SEBrainSegError(f"{scan.image_path} has no labels: {scan.labels_path.name} is missing.")
        (size, place), (labels_size, labels_place) = grid(scan.image_path), grid(scan.labels_path)
        if size != labels_size or not np.allclose(place, labels_place, rtol=0, atol=1e-3):
            raise SEBrainSegError(f"{scan.image_path} and {scan.labels_path.name} are not on the same grid.")
    return list(scans.values())


def labels_found(image: sitk.Image, name: str, **choices) -> np.ndarray:
    """Return the array of what ``segment`` labels, unlikely or not, all background if it finds no brain at all.

    Args:
        name: of the scan and the network, for a message.
        choices: arguments of ``segment``, of a network that is known to load.
    """
    try:
        return sitk.GetArrayFromImage(segment(image, accept_unlikely=True, **choices).labels)
    except SEBrainSegError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return np.zeros(image.GetSize()[::-1], np.uint8)


def dice_of_structures(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Dice of every structure in table order; not-a-number where neither array has it."""
    scored = truth != IGNORED
    found, truth = found[scored], truth[scored]
    overlap = np.bincount(truth[found == truth], minlength=256)
    total = np.bincount(truth, minlength=256) + np.bincount(found, minlength=256)
    labels = [structure.label for structure in structures()]
    with np.errstate(invalid="ignore"):
        return 2 * overlap[labels] / total[labels]


def surface(labels: np.ndarray, box: tuple[slice, ...], label: int) -> np.ndarray:
    """Return the indices, ``(n, 3)``, of the voxels of ``label`` that have a face neighbour of another label."""
    # Not at the top: Dice alone needs no SciPy.
    from scipy.ndimage import binary_erosion

    mask = labels[box] == label
    return np.argwhere(mask & ~binary_erosion(mask)) + [side.start for side in box]


def hausdorff95_of_structures(found: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the 95th-percentile Hausdorff distance in mm of every structure in table order.

    The distances from each surface voxel of either array to the nearest one of the other; the larger of the two
    directions' 95th percentiles. What the truth ignores is background in both.

    Args:
        found, truth: uint8 labels on one grid.
        spacing: mm along each axis of the arrays.

    Returns:
        not-a-number where one of the arrays, or both, lacks the structure.
    """
    from scipy.ndimage import find_objects
    from scipy.spatial import KDTree

    found, truth = (np.where(truth == IGNORED, 0, array) for array in (found, truth))
    boxes = [find_objects(array, IGNORED) for array in (found, truth)]

    def distance(label):
        boxes_of_label = [boxes_of_array[label - 1] for boxes_of_array in boxes]
        if None in boxes_of_label:
            return np.nan
        ours, theirs = (
            surface(array, box, label) * np.asarray(spacing) for array, box in zip((found, truth), boxes_of_label)
        )
        return max(
            np.percentile(KDTree(theirs).query(ours)[0], 95),
            np.percentile(KDTree(ours).query(theirs)[0], 95),
        )

    return np.array([distance(structure.label) for structure in structures()])


def score(found: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return Dice and 95th-percentile Hausdorff distance of every structure, shape ``(structures, 2)``.

    Args:
        found, truth, spacing: as of :func:`hausdorff95_of_structures`.
    """
    return np.stack((dice_of_structures(found, truth), hausdorff95_of_structures(found, truth, spacing)), axis=1)


class Values:
    """The file of every single value, kept so that a run that ended can go on.

    What it holds of a network and a scan counts only while the checksums of both are the same.
    """

    def __init__(self, path: Union[Path, str]) -> None:
        """Read what there is.

        Raises:
            SEBrainSegError: there is a file of something else.
        """
        self.path, self.stored = Path(path), {}
        if not self.path.exists():
            return
        position = {structure.name: index for index, structure in enumerate(structures())}
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    key = row["network"], row["protocol"], row["scan"]
                    empty = np.full((len(position), 2), np.nan)
                    _, values = self.stored.setdefault(key, ((row["model_sha256"], row["scan_sha256"]), empty))
                    values[position[row["structure"]]] = [
                        float(row[column] or "nan") for column in ("dice", "hausdorff95_mm")
                    ]
        except (KeyError, TypeError, ValueError):
            raise SEBrainSegError(f"{self.path} is no file of this benchmark; choose another folder.") from None

    def get(self, network: str, protocol: str, scan: str, checksums: tuple[str, str]) -> Optional[np.ndarray]:
        """Return what :meth:`add` stored under the same four, or ``None``."""
        stored_checksums, values = self.stored.get((network, protocol, scan), (None, None))
        return values if stored_checksums == checksums else None

    def add(self, network: str, protocol: str, scan: str, checksums: tuple[str, str], values: np.ndarray) -> np.ndarray:
        """Store the result of :func:`score`, rounded, and write the file; returns what is stored.

        Args:
            network, protocol, scan: names.
            checksums: of the network and of the scan.
        """
        # Rounded here already, so that a run that goes on gives the tables of one that did not end.
        values = np.round(values, 6)
        self.stored[network, protocol, scan] = checksums, values
        with replaced_whole(self.path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for key, (checksums_of_key, rows) in self.stored.items():
                for structure, pair in zip(structures(), rows):
                    written = ["" if np.isnan(value) else f"{value:.6f}" for value in pair]
                    writer.writerow([*key, structure.name, *written, *checksums_of_key])
        return values


def mean(values: Union[np.ndarray, Sequence[float]]) -> float:
    """Return the mean of what is a number; not-a-number without a warning if nothing is."""
    values = np.asarray(values)[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def spread(values: Union[np.ndarray, Sequence[float]], digits: int) -> str:
    """Write the mean over scans and, of two or more, ± their standard deviation."""
    values = np.asarray(values)[~np.isnan(values)]
    if not values.size:
        return "–"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
