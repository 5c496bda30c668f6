"""What post-processing earns: mean Dice of a network's labels as they are and after each step.

    python Testing/Benchmarks/postprocessing.py FOLDER [--view coronal] [--protocol freesurfer] [--names NAME ...]

FOLDER holds pairs NAME_t1.nii.gz and NAME_structures.nii.gz. The steps:
``brain`` (``cleanup.keep_largest``) keeps the largest piece of all; ``largest`` only the largest piece of every
structure; ``pieces`` (``cleanup.keep_pieces``) also those of at least a tenth of it; ``sides`` first gives a small
piece that touches the structure's counterpart on the other side to that. ``brain, pieces`` is what ships.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SEBrainSeg"))

from scores import dice_of_structures  # noqa: E402
from SEBrainSegLib.choices.parameters import Parameters  # noqa: E402
from SEBrainSegLib.choices.structures import structures  # noqa: E402
from SEBrainSegLib.inference.brain_region import box_within, brain_box  # noqa: E402
from SEBrainSegLib.inference.cleanup import keep_largest, keep_pieces  # noqa: E402
from SEBrainSegLib.inference.geometry import conform, restore  # noqa: E402
from SEBrainSegLib.inference.head_region import head_box  # noqa: E402
from SEBrainSegLib.inference.intensities import normalise  # noqa: E402
from SEBrainSegLib.inference.slices import classify_in_view, classify_in_views  # noqa: E402
from SEBrainSegLib.networks import bundled  # noqa: E402
from SEBrainSegLib.networks.classes import labels_of_classes, mirrored_classes  # noqa: E402


def consistent_sides(classes):
    """Give the small pieces of a structure that touch its counterpart on the other side to that."""
    mirrored, changed, kept = mirrored_classes(), classes.copy(), keep_pieces(classes)
    for index in range(1, len(structures()) + 1):
        other = mirrored[index]
        if other == index:
            continue
        small = (classes == index) & (kept != index)
        near = sitk.BinaryDilate(sitk.GetImageFromArray((classes == other).astype(np.uint8)), [1] * 3)
        pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(small.astype(np.uint8)), True))
        touching = np.unique(pieces[sitk.GetArrayFromImage(near) > 0])
        changed[np.isin(pieces, touching[touching > 0])] = other
    return changed


STEPS = {
    "none": lambda classes: classes,
    "brain": keep_largest,
    "brain, largest": lambda classes: keep_pieces(keep_largest(classes), share=1.0),
    "brain, pieces": lambda classes: keep_pieces(keep_largest(classes)),
    "brain, sides, pieces": lambda classes: keep_pieces(consistent_sides(keep_largest(classes))),
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--se", default="scse")
    parser.add_argument("--view", default="coronal")
    parser.add_argument("--protocol", default="freesurfer")
    parser.add_argument("--names", nargs="+", help="only these scans")
    chosen = parser.parse_args()
    parameters = Parameters(chosen.architecture, chosen.se, chosen.view, "cpu", chosen.protocol).checked()
    models = [
        bundled.load(parameters.architecture, parameters.se, view, parameters.protocol) for view in parameters.views
    ]
    print("| scan | " + " | ".join(STEPS) + " |\n|---|" + "---|" * len(STEPS))
    for path in sorted(chosen.folder.glob("*_t1.nii.gz")):
        name = path.name[: -len("_t1.nii.gz")]
        if chosen.names and name not in chosen.names:
            continue
        image = sitk.ReadImage(str(path))
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path.with_name(f"{name}_structures.nii.gz"))))
        conformed = conform(image)
        array = normalise(sitk.GetArrayFromImage(conformed))
        box, classes, device = head_box(array), np.zeros(array.shape, np.uint8), torch.device("cpu")
        box = box_within(box, brain_box(models[0], array[box], device, lambda: None))
        if len(models) == 1:
            classes[box] = classify_in_view(models[0], array[box], device, lambda fraction: None)[0]
        else:
            classes[box] = classify_in_views(models, array[box], device, lambda fraction: None)[0]
        scores = []
        for step in STEPS.values():
            labels = sitk.GetImageFromArray(labels_of_classes()[step(classes)])
            labels.CopyInformation(conformed)
            found = sitk.GetArrayFromImage(restore(labels, image))
            scores.append(np.nanmean(dice_of_structures(found, truth)))
        print(f"| {name} | " + " | ".join(f"{score:.4f}" for score in scores) + " |", flush=True)


if __name__ == "__main__":
    main()
