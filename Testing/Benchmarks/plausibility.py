"""What is refused as unlikely to be right: of real T1-weighted scans, which is an error, and of nonsense.

    python Testing/Benchmarks/plausibility.py FOLDER... [--names NAME ...] [--cache DIR] [--protocol freesurfer]

FOLDER holds scans NAME_t1.nii.gz, some with labels NAME_structures.nii.gz. Each is segmented with the coronal U-Net
with scSE as it is, some are degraded (noise, bias field, thick slices, a head that is tilted, a field of view that is
cut), and some are made nonsense: turned against their header, other sequences made from the T1 and its labels, label
maps, half a head without structure. Writes the table of both errors, ``Testing/plausibility.md``. What was found is
kept in DIR, so that checks can be tried without another run of the network.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk

from scores import read
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.choices.parameters import Parameters, Protocol, values
from SEBrainSegLib.inference import plausibility

TABLE = Path(__file__).resolve().parents[1] / "plausibility.md"
PLAIN = "as it is"
# Axes of arrays are [S, A, R]: their order, and which of them run backwards.
TURNS = {
    "backwards": ((0, 1, 2), (0, 1, 1)),
    "upside down": ((0, 1, 2), (1, 0, 1)),
    "upside down and backwards": ((0, 1, 2), (1, 1, 0)),
    "on its left side": ((2, 1, 0), (0, 0, 1)),
    "on its right side": ((2, 1, 0), (1, 0, 0)),
    "face up": ((1, 0, 2), (0, 1, 0)),
    "face down": ((1, 0, 2), (1, 0, 0)),
    "facing left": ((0, 2, 1), (0, 1, 0)),
    "facing right": ((0, 2, 1), (0, 0, 1)),
    "axes turned once": ((1, 2, 0), (0, 0, 0)),
    "axes turned twice": ((2, 0, 1), (0, 0, 0)),
    "mirrored upside down": ((0, 1, 2), (1, 0, 0)),
    "mirrored backwards": ((0, 1, 2), (0, 1, 0)),
}
# What fluid, cortex, white matter and fat are in other sequences, of the brightest.
SEQUENCES = {
    "T2": (1.0, 0.6, 0.38, 0.75),
    "PD": (0.95, 0.85, 0.68, 0.9),
    "FLAIR": (0.12, 0.72, 0.55, 0.85),
    "inverted T1": (0.85, 0.5, 0.15, 0.05),
}
FLUID, CORTEX, WHITE = (4, 43), (3, 42), (2, 41)
# Axis, and the part of the brain's length along it that is kept.
CUTS = {
    "cut through the cerebellum": ((0, 0.2, 1.0),),
    "without the lower third": ((0, 0.4, 1.0),),
    "without the upper third": ((0, 0.0, 0.67),),
    "without the occiput": ((1, 0.3, 1.0),),
    "without the forehead": ((1, 0.0, 0.7),),
    "right half only": ((2, 0.5, 1.0),),
    "80 mm around the thalami": ((0, 0.25, 0.85), (1, 0.3, 0.8), (2, 0.15, 0.85)),
}
TILTS = {
    "nodding 30 degrees": (30, (1, 0, 0)),
    "tilted 25 degrees": (25, (0, 1, 0)),
    "turned 25 degrees": (25, (0, 0, 1)),
}
SLICES = {
    "axial slices of 5 mm": (1.0, 1.0, 5.0),
    "coronal slices of 6 mm": (1.0, 6.0, 1.0),
    "voxels of 3 mm": (3.0,) * 3,
}
DEGRADED = (
    "noise of 10 %",
    "bias field",
    "weak contrast",
    *SLICES,
    *TILTS,
    *CUTS,
    "without the occiput, filled with 0",
)
SMALLER, LARGER = "voxels 0.7 times as large", "voxels 1.4 times as large"
SIZES = {SMALLER: 0.7, LARGER: 1.4}
HALVES = ("left half without structure",)
REAL = (PLAIN, *DEGRADED)
NONSENSE = (*TURNS, *SEQUENCES, "label map", *HALVES, LARGER)
# Neither: such a brain may be a child's.
OTHERS = (SMALLER,)
# What is tried with which scans; the others are segmented as they are.
TRIED = {
    "philips": (*DEGRADED, "backwards", "upside down", "on its left side"),
    "swm": (*DEGRADED, *SEQUENCES, *HALVES, *SIZES, "label map", "backwards", "on its left side"),
    "visualqc": (
        *("noise of 10 %", "bias field", "axial slices of 5 mm", "nodding 30 degrees", "tilted 25 degrees"),
        *("without the lower third", "without the occiput", "80 mm around the thalami", *SEQUENCES, "label map"),
    ),
    "colin27": (*TURNS, *HALVES),
    "niivue": (*SEQUENCES, "label map", "backwards", "upside down", "face up", "on its left side", "facing left"),
    "oasis": ("label map",),
    "1017": ("label map",),
}


class Evidence(NamedTuple):
    """What a network found, and why it was refused before the checks of places and sizes, if it was.

    Attributes:
        labels: conformed array ``[S, A, R]``; ``None`` if it was refused before.
        tissue: whether every fourth voxel is brighter than air.
        volumes: ml by label.
        confidence: mean over what is labelled.
        doubt: the sentence, or ``""``.
    """

    labels: Optional[np.ndarray]
    tissue: Optional[np.ndarray]
    volumes: dict
    confidence: Optional[float]
    doubt: str

    def why(self, protocol: str) -> str:
        """Return the sentence by which it is refused now, or ``""``."""
        if self.doubt:
            return self.doubt
        array = np.zeros(self.labels.shape, np.float32)
        array[:: plausibility.EVERY, :: plausibility.EVERY, :: plausibility.EVERY] = self.tissue
        return plausibility.why_unlikely(
            self.labels, array, self.volumes, self.confidence, Parameters(protocol=protocol)
        )


def upright(image: sitk.Image) -> sitk.Image:
    """Return a volume of float32 in the order right, anterior, superior."""
    return sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "RAS")


def like(array: np.ndarray, image: sitk.Image, spacing=None) -> sitk.Image:
    """Return an array ``[S, A, R]`` as a volume where another lies."""
    made = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    made.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    made.SetSpacing(spacing or image.GetSpacing())
    made.SetOrigin(image.GetOrigin())
    return made


def turned(image: sitk.Image, order, backwards) -> sitk.Image:
    """Return a volume whose header says other directions than those of its voxels."""
    image = upright(image)
    array = np.transpose(sitk.GetArrayFromImage(image), order)
    array = array[tuple(slice(None, None, -1 if each else 1) for each in backwards)]
    spacing = image.GetSpacing()[::-1]
    return like(array, image, [spacing[axis] for axis in order][::-1])


def degraded(image: sitk.Image, kind: str) -> sitk.Image:
    """Return a volume with more noise, a bias field or less contrast."""
    image = upright(image)
    array = sitk.GetArrayFromImage(image)
    bright, random = np.percentile(array[array > array.mean()], 98), np.random.default_rng(0)
    if kind == "noise of 10 %":
        return like(
            np.hypot(array + random.normal(0, bright / 10, array.shape), random.normal(0, bright / 10, array.shape)),
            image,
        )
    if kind == "weak contrast":
        return like(bright * np.clip(array / bright, 0, None) ** 0.6, image)
    s, a, r = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape), indexing="ij", sparse=True)
    return like(array * np.exp(0.5 * s + 0.4 * a - 0.3 * r - 0.4 * (r**2 + a**2)), image)


def tilted(image: sitk.Image, degrees: float, axis) -> sitk.Image:
    """Return the volume of a head that lay otherwise in the scanner."""
    image = upright(image)
    middle = image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in image.GetSize()])
    return sitk.Resample(image, image, sitk.VersorTransform(axis, np.deg2rad(degrees), middle), sitk.sitkLinear, 0.0)


def coarse(image: sitk.Image, spacing) -> sitk.Image:
    """Return a volume of larger voxels, each the mean of what it covers."""
    image = upright(image)
    for axis, (fine, large) in enumerate(zip(image.GetSpacing(), spacing)):
        if large > fine:
            width = np.sqrt(large**2 - fine**2) / 2.355
            image = sitk.RecursiveGaussian(image, width, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    size = [round(n * fine / large) for n, fine, large in zip(image.GetSize(), image.GetSpacing(), spacing)]
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection(), 0.0
    )


def sequence(image: sitk.Image, labels: sitk.Image, kind: str) -> sitk.Image:
    """Return another sequence, from the intensities of a T1-weighted scan and what its labels say they mean."""
    image = upright(image)
    array, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "RAS"))
    fluid, cortex, white = (float(np.median(array[np.isin(labels, each)])) for each in (FLUID, CORTEX, WHITE))
    # Air and bone stay dark.
    known = [0, fluid / 2, fluid, cortex, white, 1.5 * white]
    made = np.interp(array, known, [0, 0.15 * SEQUENCES[kind][0], *SEQUENCES[kind]])
    return like(
        1000 * np.clip(made + np.random.default_rng(0).normal(0, 0.02, made.shape) * (array > 0), 0, None), image
    )


def cut(image: sitk.Image, plain: np.ndarray, parts) -> sitk.Image:
    """Return the part of a volume that has some of the brain.

    Args:
        plain: labels of the whole, ``[S, A, R]``.
        parts: axes with the first and the last kept place along the brain, in [0, 1]; at an end all is kept.
    """
    image, box = upright(image), [slice(None)] * 3
    where = np.nonzero(plain)
    for axis, first, last in parts:
        low, high = where[axis].min(), where[axis].max()
        scale = image.GetSize()[2 - axis] / plain.shape[axis]
        start = int((low + first * (high - low)) * scale) if first > 0 else 0
        stop = int((low + last * (high - low)) * scale) if last < 1 else image.GetSize()[2 - axis]
        box[2 - axis] = slice(start, stop)
    return image[tuple(box)]


def without_structure(image: sitk.Image, plain: np.ndarray) -> sitk.Image:
    """Return a volume the left half of whose head is of one intensity."""
    image = upright(image)
    array, columns = sitk.GetArrayFromImage(image), np.nonzero(plain)[2]
    middle = int((columns.min() + columns.max()) / 2 * array.shape[2] / plain.shape[2])
    bright, left = array[array > array.mean()].mean(), array[..., :middle]
    left[:] = (left > 0.15 * bright) * (bright + np.random.default_rng(0).normal(0, 0.05 * bright, left.shape))
    return like(array, image)


def made(path: Path, kind: str, plain: Optional[np.ndarray]) -> sitk.Image:
    """Return a scan as it is, degraded or made nonsense.

    Args:
        path: of the scan.
        kind: one of ``REAL``, ``NONSENSE`` and ``OTHERS``.
        plain: what was found in the scan as it is, ``[S, A, R]``.
    """
    labels = path.with_name(path.name.replace("_t1", "_structures"))
    if kind == "label map":
        return read(labels)
    image = read(path)
    if kind in TURNS:
        return turned(image, *TURNS[kind])
    if kind in SEQUENCES:
        return sequence(image, read(labels), kind)
    if kind in TILTS:
        return tilted(image, *TILTS[kind])
    if kind in SLICES:
        return coarse(image, SLICES[kind])
    if kind in CUTS:
        return cut(image, plain, CUTS[kind])
    if kind == "without the occiput, filled with 0":
        return sitk.Resample(cut(image, plain, CUTS["without the occiput"]), upright(image), sitk.Transform(), 1, 0.0)
    if kind in SIZES:
        image = upright(image)
        image.SetSpacing([SIZES[kind] * each for each in image.GetSpacing()])
        return image
    if kind in HALVES:
        return without_structure(image, plain)
    return image if kind == PLAIN else degraded(image, kind)


def found_in(image: sitk.Image, protocol: str) -> Evidence:
    """Segment an image, however unlikely the result is."""
    seen = []
    with patch.object(plausibility, "why_unlikely", lambda *evidence: seen.append(evidence) or ""):
        try:
            doubt = segment(image, protocol=protocol, accept_unlikely=True).implausibility
        except SEBrainSegError as error:
            doubt = str(error)
    if not seen:
        return Evidence(None, None, {}, None, doubt)
    labels, array, volumes, confidence, _ = seen[0]
    tissue = array[:: plausibility.EVERY, :: plausibility.EVERY, :: plausibility.EVERY] > plausibility.TISSUE
    return Evidence(labels, tissue, volumes, confidence, doubt)


def kept(path: Path) -> Evidence:
    """Read what :func:`keep` wrote."""
    with np.load(path) as file:
        said = json.loads(str(file["said"]))
        labels, tissue = (file[name] if name in file else None for name in ("labels", "tissue"))
    volumes = {int(label): ml for label, ml in said["volumes"].items()}
    return Evidence(labels, tissue, volumes, said["confidence"], said["doubt"])


def keep(evidence: Evidence, path: Path) -> None:
    """Write what was found."""
    said = {"volumes": evidence.volumes, "confidence": evidence.confidence, "doubt": evidence.doubt}
    arrays = {} if evidence.labels is None else {"labels": evidence.labels, "tissue": evidence.tissue}
    np.savez_compressed(path, said=json.dumps(said), **arrays)


def all_found(paths: dict[str, Path], cache: Optional[Path], protocol: str) -> Iterator[tuple[str, str, Evidence]]:
    """Yield scan, kind and what was found, of all that is tried."""
    for name, path in paths.items():
        plain = None
        for kind in (PLAIN, *TRIED.get(name, ())):
            file = cache / f"{protocol}--{name}--{kind}.npz" if cache else None
            if file and file.exists():
                evidence = kept(file)
            else:
                evidence = found_in(made(path, kind, plain), protocol)
                if file:
                    keep(evidence, file)
            if kind == PLAIN:
                plain = evidence.labels
            print(f"{name}, {kind}: {evidence.why(protocol) or 'accepted'}", file=sys.stderr, flush=True)
            yield name, kind, evidence


def table(rows: list[tuple[str, str, Evidence]], kinds, protocol: str) -> str:
    """Return a table of Markdown: a line for each kind."""
    lines = ["| Input | Images | Refused | Confidence | Brain (ml) | What is said first |", "|---|---|---|---|---|---|"]
    total = refused = 0
    for kind in kinds:
        found = [evidence for _, each, evidence in rows if each == kind]
        if not found:
            continue
        said = list(filter(None, (evidence.why(protocol) for evidence in found)))
        sure = sorted(evidence.confidence for evidence in found if evidence.confidence is not None)
        ml = sorted(sum(evidence.volumes.values()) for evidence in found if evidence.volumes)
        total, refused = total + len(found), refused + len(said)
        ends = [f"{sure[0]:.2f} to {sure[-1]:.2f}" if sure else "", f"{ml[0]:.0f} to {ml[-1]:.0f}" if ml else ""]
        words = said[0].split(";")[0] if said else ""
        lines.append(f"| {kind} | {len(found)} | {len(said)} | {' | '.join(ends)} | {words} |")
    return "\n".join([*lines, f"| **all** | **{total}** | **{refused}** | | | |"])


TEXT = """# What is refused as unlikely to be right

Written by `Testing/Benchmarks/plausibility.py` with the {protocol} protocol of the coronal U-Net with scSE, from
{scans} scans. A real T1-weighted scan that is refused is an error, as is nonsense that is not. The thresholds were
chosen on these very images, so expect some of both elsewhere, and with other networks. Other sequences are made from T1
and labels, as no real ones are at hand.
`--accept-unlikely` shows what is refused all the same. **A head whose left and right are exchanged looks like any
other: no check can see it**, and it is the file that must be right.

## Real scans: none may be refused

{real}

## Nonsense: all must be refused

{nonsense}

## Neither

{others}
"""


def main(argv=None) -> int:
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", help="only these scans")
    parser.add_argument("--cache", type=Path, help="folder that keeps what was found")
    parser.add_argument("--protocol", default=Protocol.FREESURFER.value, choices=values(Protocol))
    parser.add_argument("--file", type=Path, default=TABLE, help="file to write (default: %(default)s)")
    chosen = parser.parse_args(argv)
    paths = {
        path.name[: -len("_t1.nii.gz")]: path for each in chosen.folders for path in sorted(each.glob("*_t1.nii.gz"))
    }
    paths = {name: path for name, path in paths.items() if not chosen.names or name in chosen.names}
    if not paths:
        print("There are no such scans NAME_t1.nii.gz.", file=sys.stderr)
        return 2
    if chosen.cache:
        chosen.cache.mkdir(parents=True, exist_ok=True)
    try:
        rows = list(all_found(paths, chosen.cache, chosen.protocol))
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    parts = {
        name: table(rows, kinds, chosen.protocol)
        for name, kinds in (("real", REAL), ("nonsense", NONSENSE), ("others", OTHERS))
    }
    chosen.file.write_text(TEXT.format(protocol=chosen.protocol, scans=len(paths), **parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
