"""The files by which Slicer's process hands a volume to its child (:mod:`.worker`) and gets segmentations back.

Images go through files in a folder of the run, all else through a line of JSON.
"""

import json
from dataclasses import asdict

import numpy as np

from ..analysis.comparison import Differences
from ..choices.parameters import Parameters
from ..choices.structures import rows_of, table_of
from ..inference.result import Excitation, Segmentation
from ..lazy import sitk

VOLUME, JOB = "volume.nrrd", "job.json"


LABELS, CONFIDENCE, SPATIAL = "labels", "confidence", "spatial"


# Segmentations made before, which are compared with new ones, lie in a folder of their own.
KNOWN, ROWS = "known", "rows.json"


# What differs between segmentations.
NUMBERS, DISAGREEMENT, COMMONEST = "differences.npz", "disagreement.nrrd", "commonest.nrrd"


def path_of(folder, number, what):
    """The file of one image of segmentation ``number``."""
    return folder / f"{number}-{what}.nrrd"


def write(folder, segmentations):
    """Write the images of segmentations into the folder; return all else as what JSON can hold.

    Raises:
        RuntimeError: an image cannot be written.
    """
    rows = []
    for number, each in enumerate(segmentations):
        images = {LABELS: each.labels, CONFIDENCE: each.confidence}
        row = {
            "device": each.device,
            "seconds": each.seconds,
            "parameters": asdict(each.parameters),
            "structures": rows_of(each.structures),
            "volumes": list(each.volumes.items()),
            "confidences": list(each.confidences.items()),
            "implausibility": each.implausibility,
            "cut_off": each.cut_off,
        }
        if each.excitation:
            images[SPATIAL] = each.excitation.spatial
            row["excitation"] = [each.excitation.block, each.excitation.mean, each.excitation.spread]
        row["images"] = [what for what, image in images.items() if image is not None]
        for what in row["images"]:
            sitk.WriteImage(images[what], str(path_of(folder, number, what)))
        rows.append(row)
    return rows


def read(folder, rows):
    """Return the segmentations that :func:`write` wrote, their images in memory.

    Raises:
        RuntimeError: an image cannot be read.
        KeyError, TypeError, ValueError: ``rows`` are not those of :func:`write`.
    """
    found = []
    for number, row in enumerate(rows):
        images = {what: sitk.ReadImage(str(path_of(folder, number, what))) for what in row["images"]}
        excitation = None
        if "excitation" in row:
            block, mean, spread = row["excitation"]
            excitation = Excitation(block, images.get(SPATIAL), tuple(mean), tuple(spread))
        found.append(
            Segmentation(
                images[LABELS],
                {int(label): float(ml) for label, ml in row["volumes"]},
                str(row["device"]),
                table_of(row["structures"]),
                Parameters(**row["parameters"]),
                float(row["seconds"]),
                {int(label): float(value) for label, value in row["confidences"]},
                images.get(CONFIDENCE),
                excitation,
                str(row["implausibility"]),
                tuple(int(label) for label in row["cut_off"]),
            )
        )
    return tuple(found)


def write_known(folder, segmentations):
    """Write segmentations that were made before for :func:`read_known`; raises as :func:`write`."""
    (folder / KNOWN).mkdir()
    rows = write(folder / KNOWN, segmentations)
    (folder / KNOWN / ROWS).write_text(json.dumps(rows), encoding="utf-8")


def read_known(folder):
    """Return the segmentations that :func:`write_known` wrote; raises as :func:`read`."""
    return read(folder / KNOWN, json.loads((folder / KNOWN / ROWS).read_text(encoding="utf-8")))


def write_differences(folder, differences):
    """Write what :func:`read_differences` reads; raises as :func:`write`."""
    sitk.WriteImage(differences.disagreement, str(folder / DISAGREEMENT))
    sitk.WriteImage(differences.commonest, str(folder / COMMONEST))
    volumes = np.array(list(differences.common_volumes.items()))
    numbers = {"volumes": differences.volumes, "dice": differences.dice, "common_volumes": volumes}
    np.savez(folder / NUMBERS, pairs=np.array(differences.pairs), **numbers)


def read_differences(folder, segmentations):
    """Return the :class:`~.comparison.Differences` of segmentations that :func:`write_differences` wrote.

    Raises:
        OSError, RuntimeError: a file cannot be read.
        KeyError, ValueError: they are not of these segmentations.
    """
    with np.load(folder / NUMBERS) as numbers:
        return Differences(
            segmentations,
            segmentations[0].structures,
            numbers["volumes"],
            tuple((int(one), int(other)) for one, other in numbers["pairs"]),
            numbers["dice"],
            sitk.ReadImage(str(folder / DISAGREEMENT)),
            sitk.ReadImage(str(folder / COMMONEST)),
            {int(label): float(ml) for label, ml in numbers["common_volumes"]},
        )
