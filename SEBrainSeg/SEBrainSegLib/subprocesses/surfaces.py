"""Closed surfaces of labelled structures, made in a child process, where VTK's filters hold nobody up.

``python -m SEBrainSegLib.subprocesses.surfaces FOLDER`` reads what :func:`write_request` wrote and writes what
:func:`read` reads.
It tells how it goes as :mod:`.worker` does. The filters and their settings are those of Slicer's own conversion.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import numpy as np

from .worker import talk

REQUEST = "surfaces.json"


@dataclass(frozen=True)
class Labelmap:
    """Voxels of labels, and the structures to make surfaces of.

    Attributes:
        labels: ``(k, j, i)``.
        matrix: 4x4, from the indices i, j, k (from 0) to the coordinates of the surfaces.
        segments: the id, the name and the label of every structure.
    """

    labels: np.ndarray
    matrix: np.ndarray
    segments: tuple[tuple[str, str, int], ...]


class Settings(NamedTuple):
    """How surfaces are made: Slicer's parameters of the conversion.

    smoothing, decimation: from 0 to 1.
    normals: whether to compute the normals.
    """

    smoothing: float = 0.5
    decimation: float = 0.0
    normals: bool = True


class Surface(NamedTuple):
    """A closed surface.

    points: ``(N, 3)`` float32.
    triangles: ``(M, 3)`` int32, indices of points.
    normals: ``(N, 3)`` float32, or ``None``.
    """

    points: np.ndarray
    triangles: np.ndarray
    normals: Optional[np.ndarray] = None


def box_of(inside):
    """Return the box of an array ``(k, j, i)`` that holds all that is true, as slices; ``None`` if nothing is."""
    box = []
    for axis in range(3):
        (at,) = np.nonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(at):
            return None
        box.append(slice(int(at[0]), int(at[-1]) + 1))
    return tuple(box)


def surface_of(labels, label, matrix, settings) -> Optional[Surface]:
    """Return the surface around the voxels of one label, or ``None`` if there are none.

    Args:
        labels, matrix: as of :class:`Labelmap`.
        label: the label.
        settings: :class:`Settings`.
    """
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
    from vtkmodules.vtkFiltersCore import vtkDecimatePro, vtkPolyDataNormals, vtkWindowedSincPolyDataFilter
    from vtkmodules.vtkFiltersGeneral import vtkDiscreteFlyingEdges3D

    inside = labels == label
    box = box_of(inside)
    if box is None:
        return None
    # With a voxel around, or the surface would be open where the volume ends.
    voxels = np.pad(inside[box].astype(np.uint8), 1)
    image = vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    filters: list[Any] = [vtkDiscreteFlyingEdges3D()]
    filters[0].SetInputData(image)
    filters[0].ComputeGradientsOff()
    filters[0].ComputeNormalsOff()
    filters[0].SetValue(0, 1)
    if settings.decimation > 0:
        filters.append(vtkDecimatePro())
        filters[-1].SetFeatureAngle(60)
        filters[-1].SplittingOff()
        filters[-1].PreserveTopologyOn()
        filters[-1].SetMaximumError(1)
        filters[-1].SetTargetReduction(settings.decimation)
    if settings.smoothing > 0:
        filters.append(vtkWindowedSincPolyDataFilter())
        filters[-1].SetNumberOfIterations(int(20 + 40 * settings.smoothing))
        filters[-1].SetPassBand(10 ** (-4 * settings.smoothing))
        filters[-1].BoundarySmoothingOff()
        filters[-1].FeatureEdgeSmoothingOff()
        filters[-1].NonManifoldSmoothingOn()
        filters[-1].NormalizeCoordinatesOn()
    for one, next_one in zip(filters, filters[1:]):
        next_one.SetInputConnection(one.GetOutputPort())
    filters[-1].Update()
    found = filters[-1].GetOutput()
    start = np.array([axis.start - 1 for axis in box[::-1]])
    points = vtk_to_numpy(found.GetPoints().GetData()) + start
    points = (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    moved = vtkPolyData()
    moved.ShallowCopy(found)
    vertices = numpy_to_vtk(points, deep=True)
    moved.GetPoints().SetData(vertices)
    normals = None
    if settings.normals:
        filters.append(vtkPolyDataNormals())
        filters[-1].SetInputData(moved)
        filters[-1].ConsistencyOn()
        filters[-1].SplittingOff()
        filters[-1].Update()
        moved = filters[-1].GetOutput()
        points = vtk_to_numpy(moved.GetPoints().GetData())
        normals = vtk_to_numpy(moved.GetPointData().GetNormals())
    triangles = vtk_to_numpy(moved.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int32)
    return Surface(points, triangles, normals)


def path_of(folder, number):
    """The file of surface ``number``."""
    return folder / f"surface-{number}.npz"


def write_request(folder, labelmaps, settings):
    """Write labelmaps and :class:`Settings` for the child process.

    Raises:
        OSError: the disk is full.
    """
    rows = []
    for number, each in enumerate(labelmaps):
        np.save(folder / f"labels-{number}.npy", each.labels)
        rows.append({"matrix": np.asarray(each.matrix).tolist(), "segments": each.segments})
    (folder / REQUEST).write_text(json.dumps({"settings": settings, "labelmaps": rows}), encoding="utf-8")


def make(folder, tell):
    """Make the surfaces that a folder asks for; ``tell`` is called with what goes into a line.

    Raises:
        ModuleNotFoundError: this Python has no VTK.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    settings, done, names = Settings(*request["settings"]), 0, []
    count = sum(len(row["segments"]) for row in request["labelmaps"])
    for number, row in enumerate(request["labelmaps"]):
        labels, matrix = np.load(folder / f"labels-{number}.npy"), np.array(row["matrix"])
        for segment, name, label in row["segments"]:
            tell(progress=done / count, message=f"Making surfaces: {name}")
            surface = surface_of(labels, label, matrix, settings)
            if surface is not None:
                arrays = {field: array for field, array in surface._asdict().items() if array is not None}
                np.savez(path_of(folder, done), **arrays)
            names.append(segment)
            done += 1
    tell(surfaces=names)


def read(folder, names):
    """Return the surfaces that :func:`make` made by the ids of their segments, ``None`` where there is nothing.

    Raises:
        OSError, ValueError, KeyError: a file cannot be read.
    """
    found: dict[str, Optional[Surface]] = {}
    for number, name in enumerate(names):
        found[name] = None
        if path_of(folder, number).exists():
            with np.load(path_of(folder, number)) as arrays:
                found[name] = Surface(**arrays)
    return found


if __name__ == "__main__":
    sys.exit(talk(make))
