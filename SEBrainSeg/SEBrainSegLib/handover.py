"""The files by which Slicer's process hands a volume to its child (:mod:`.worker`) and gets segmentations back.

Images go through files in a folder of the run, all else through a line of JSON.
"""

from dataclasses import asdict

import SimpleITK as sitk

from .parameters import Parameters
from .segmentation import Excitation, Segmentation
from .structures import rows_of, table_of

VOLUME, JOB = "volume.nrrd", "job.json"
LABELS, CONFIDENCE, SPATIAL = "labels", "confidence", "spatial"


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
            "doubt": each.doubt,
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
                str(row["doubt"]),
                tuple(int(label) for label in row["cut_off"]),
            )
        )
    return tuple(found)
