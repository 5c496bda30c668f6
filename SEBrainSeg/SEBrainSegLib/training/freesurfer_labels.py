"""``python -m SEBrainSegLib.training.freesurfer_labels SCAN ... --output DIR``: label scans as FreeSurfer would.

The label maps of heads follow FreeSurfer's protocol, but have no scans; the scans have manual labels only. What the
bundled U-Nets make of the scans in FreeSurfer's protocol lets the next networks meet that protocol in real images
(self-training, which the paper does not have): the mean of all views and SE variants, mirrored as well.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from .. import zoo
from ..errors import SEBrainSegError
from ..inference import VIEW_WEIGHTS, keep_largest, keep_pieces, logits_of_slices, on_grid_of
from ..reading import read
from ..recalibration import VARIANTS
from ..structures import labels_of_classes, mirrored_classes, structures, unsided_classes
from ..volume import VIEWS, check, head_box, prepare

ENDING = "_structures.nii.gz"


def teachers():
    """The bundled U-Nets as ``(model, share)``; the shares of all add up to 1."""
    found = []
    for view, weight in VIEW_WEIGHTS.items():
        variants = VARIANTS if view == "coronal" else ("scse",)
        found += [(zoo.load("unet", se, view), weight / len(variants)) for se in variants]
    return found


def freesurfer_classes(array, models):
    """Class indices ``[S, A, R]`` of a conformed array by the mean probability of models, mirrored and not.

    Args:
        models: pairs of a :class:`~..model.Model` and its share of the mean.
    """
    classes = len(structures()) + 1
    total = np.zeros((classes, *array.shape), np.float32)
    mirror, unsided = (each()[:classes].astype(np.int64) for each in (mirrored_classes, unsided_classes))
    for model, share in models:
        axis = VIEWS[model.view]
        # The sagittal network knows no sides: mirrored, it would see the same slices.
        for mirrored in (False,) if model.view == "sagittal" else (False, True):
            seen = array[..., ::-1] if mirrored else array
            votes = np.moveaxis(total[..., ::-1] if mirrored else total, axis + 1, 0)
            which = unsided if model.view == "sagittal" else mirror if mirrored else slice(None)
            part = share if model.view == "sagittal" else share / 2
            for first, logits in logits_of_slices(model.network, np.moveaxis(seen, axis, 0), torch.device("cpu")):
                votes[first : first + len(logits)] += part * logits.float().softmax(dim=1).numpy()[:, which]
    return keep_pieces(keep_largest(total.argmax(axis=0).astype(np.uint8)))


def freesurfer_labels(image, models):
    """A label image on the grid of a scan, see :func:`freesurfer_classes`."""
    check(image)
    grid, array = prepare(image)
    box, classes = head_box(array), np.zeros(array.shape, np.uint8)
    classes[box] = freesurfer_classes(array[box], models)
    return on_grid_of(labels_of_classes(structures())[classes], grid, image)


def main(argv=None):
    """Run the command; returns the exit status (0 done, 2 unusable input)."""
    parser = argparse.ArgumentParser(description=__doc__.split(": ")[1].split("\n")[0])
    parser.add_argument("scans", metavar="SCAN", nargs="+", type=Path, help="NAME_t1.nii.gz")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help=f"for NAME{ENDING}; kept if there")
    chosen = parser.parse_args(argv)
    models = teachers()
    try:
        for path in chosen.scans:
            name, suffix, _ = path.name.rpartition("_t1.")
            if not suffix:
                raise SEBrainSegError(f"{path} is not called NAME_t1.nii.gz; rename it.")
            labels = chosen.output / f"{name}{ENDING}"
            if labels.exists():
                continue
            found = freesurfer_labels(read(path), models)
            try:
                chosen.output.mkdir(parents=True, exist_ok=True)
                sitk.WriteImage(found, str(labels), True)
            except (OSError, RuntimeError):
                raise SEBrainSegError(f"{labels} cannot be written; choose another --output.") from None
            print(labels, flush=True)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
