"""Synthetic scans: intensities for a label map, a skull around a stripped brain, what a scanner does to an image."""

import math
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import torch
from torch.nn import functional

from ..inference.slices import smoothed
from .deformation import nearest, smooth_noise
from .scans import FIRST_EXTRACEREBRAL

# Mean T1 intensities relative to cerebral white matter, by FreeSurfer id of the left structure; the 31 structures as
# measured inside of them, where nothing else is mixed in, in the training scans, the others as in their neighbours.
T1_CONTRAST = {
    2: 1.0,
    3: 0.57,
    4: 0.20,
    5: 0.20,
    7: 0.95,
    8: 0.63,
    10: 0.81,
    11: 0.68,
    12: 0.77,
    13: 0.93,
    14: 0.22,
    15: 0.17,
    16: 0.87,
    17: 0.61,
    18: 0.61,
    24: 0.20,
    25: 0.75,
    26: 0.64,
    28: 0.91,
    30: 0.45,
    72: 0.28,
    85: 0.8,
    136: 0.35,
    137: 0.35,
}


# FreeSurfer id of the left counterpart, by that of the right structure.
LEFT_OF = {
    **{41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 57: 25, 58: 26},
    **{60: 28, 62: 30, 163: 136, 164: 137},
}


def tissue_intensities(
    rng: np.random.Generator, tissue_ids: Union[np.ndarray, Sequence[int]], stripped: bool
) -> np.ndarray:
    """Draw a mean intensity for every tissue, in units of white matter; T1-like 19 times of 20.

    Left and right share a mean. Tissue outside the brain is anything from black to bright, or black if stripped.
    """
    t1_like = rng.random() < 0.95
    means = np.zeros(len(tissue_ids), np.float32)
    drawn: dict[int, float] = {}
    spread = rng.uniform(0.01, 0.07)
    bare_csf = rng.random() < 0.5
    for index, tissue in enumerate(int(t) for t in tissue_ids):
        if tissue == 0:
            continue
        if tissue >= FIRST_EXTRACEREBRAL or (tissue == 24 and bare_csf and stripped):
            means[index] = 0.0 if stripped else rng.uniform(0.0, 1.3)
            continue
        left = LEFT_OF.get(tissue, tissue)
        if left not in drawn:
            typical = T1_CONTRAST.get(left, 0.5) * math.exp(rng.normal(0, spread))
            drawn[left] = typical if t1_like else rng.uniform(0.05, 1.1)
        means[index] = drawn[left]
    return means


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur slices ``(N, H, W)``, each by itself, with a Gaussian of so many pixels."""
    if sigma < 0.15:
        return image
    radius = max(1, int(math.ceil(2.5 * sigma)))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma) ** 2)
    taps = taps / taps.sum()
    return smoothed(image, taps)


def synthesise(
    rng: np.random.Generator, head: Any, positions: torch.Tensor, normal: int, narrowed: float = 0.0
) -> torch.Tensor:
    """Return a scan's slices ``(slices, H, W)`` for the deformed ones of a label map, white matter near 1.

    Args:
        head: a :class:`~.scans.HeadLabels`, or a :class:`~.scans.LabelledScan`, whose surroundings stay black.
        positions: ``(3, slices, H, W)`` as of :func:`~.deformation.slice_positions`.
        normal: array axis along which the slice has its thickness.
        narrowed: mm by which the ventricles' walls have moved inwards.
    """
    stripped = rng.random() < 0.4
    means = torch.from_numpy(tissue_intensities(rng, head.tissue_ids, stripped))
    texture = torch.from_numpy(rng.uniform(0.02, 0.10, len(means)).astype(np.float32)) * (means > 0)
    image = torch.zeros(positions.shape[1:])
    # Two sheets half a millimetre apart give the partial volume across the slice.
    for sheet in (-0.3, 0.3):
        shifted = positions.clone()
        shifted[normal] += sheet * float(rng.uniform(0.5, 2.0))
        tissues = head.tissues_at(shifted, narrowed).int()
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image += 0.5 * (means[tissues] + texture[tissues] * noise)
    if head.pattern is not None:
        strength = float(rng.uniform(0.0, 1.5))
        image = image * (1 + strength * (nearest(head.pattern, positions, 100).float() / 100 - 1))
    return blur(image, float(rng.uniform(0.3, 0.9)))


def paint_skull(rng: np.random.Generator, image: torch.Tensor, distance: torch.Tensor, view: str) -> torch.Tensor:
    """Surround a stripped brain with fluid, skull, marrow, scalp and, half of the time, more tissue beyond.

    Args:
        image: stripped slices ``(slices, H, W)``, white matter near 1.
        distance: mm outside the brain, same shape, 0 within.
        view: tells where "beyond" is: below the brain, or before it in axial slices.
    """
    shape = (image.shape[-2], image.shape[-1])
    warped = distance * (1 + 0.35 * smooth_noise(rng, 1, shape, 6)[0]).clamp(0.3, 3.0)
    layers = (
        (rng.uniform(0.0, 5.0), rng.uniform(0.05, 0.35)),
        (rng.uniform(1.0, 3.0), rng.uniform(0.0, 0.25)),
        (rng.uniform(0.0, 5.0), rng.uniform(0.1, 1.3)),
        (rng.uniform(1.0, 3.0), rng.uniform(0.0, 0.25)),
        (rng.uniform(1.0, 6.0), rng.uniform(0.1, 1.0)),
        (rng.uniform(2.0, 9.0), rng.uniform(0.4, 1.5)),
    )
    painted, inner = image.clone(), 0.0
    for thickness, intensity in layers:
        outer = inner + thickness
        ring = (warped > inner) & (warped <= outer)
        painted[ring] = float(intensity)
        inner = outer
    if rng.random() < 0.5:
        levels = torch.from_numpy(rng.uniform(0.0, 1.3, 5).astype(np.float32))
        blobs = smooth_noise(rng, 1, shape, int(rng.integers(6, 20)))[0]
        beyond = warped > inner
        half = rng.integers(0, shape[0])
        beyond[:, slice(half) if view == "axial" else slice(half, None)] = False
        painted = torch.where(beyond, levels[((blobs + 1.5) * 1.7).long().clamp(0, 4)], painted)
    outside = (distance > 0).float()
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    texture = noise * float(rng.uniform(0.01, 0.08))
    painted = painted + outside * texture
    soft = blur(painted, float(rng.uniform(0.4, 1.0)))
    return torch.where(distance > 0, soft, painted)


def scanner_effects(rng: np.random.Generator, image: torch.Tensor) -> torch.Tensor:
    """Vary contrast (gamma), bias field, resolution, noise and gain of slices ``(slices, H, W)``.

    Returns:
        the same shape, in [0, 2].
    """
    shape = (image.shape[-2], image.shape[-1])
    image = image.clamp(min=0)
    image = image ** float(math.exp(rng.normal(0, 0.15)))
    image = image * torch.exp(smooth_noise(rng, 1, shape, 4)[0] * float(rng.uniform(0, 0.2)))
    if rng.random() < 0.25:
        coarse = [max(8, int(n / rng.uniform(1.0, 2.2))) for n in shape]
        low = functional.interpolate(image[None], size=coarse, mode="area")
        image = functional.interpolate(low, size=shape, mode="bilinear", align_corners=False)[0]
    noise = torch.from_numpy(rng.standard_normal((2, *image.shape), dtype=np.float32)) * float(rng.uniform(0, 0.05))
    image = torch.sqrt((image + noise[0]) ** 2 + noise[1] ** 2) if rng.random() < 0.7 else image
    return (image * float(math.exp(rng.normal(-0.15, 0.2)))).clamp(0, 2)
