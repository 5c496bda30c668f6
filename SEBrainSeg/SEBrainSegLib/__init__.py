"""Whole-brain segmentation with squeeze & excitation networks; the core needs neither Slicer nor Qt.

``segment(image, se="scse")`` takes a ``SimpleITK.Image`` and returns a ``Segmentation``; see :mod:`.inference.run` and
:mod:`.inference.result`. ``read(path)`` makes such an image of a file or a folder of DICOM; see :mod:`.files.reading`.
"""

from .errors import Cancelled, SEBrainSegError, UnlikelyError

__all__ = ["Cancelled", "SEBrainSegError", "Segmentation", "UnlikelyError", "read", "segment"]


def __getattr__(name):
    # torch is imported when first needed, so that Slicer starts without it.
    if name == "segment":
        from .inference.run import segment

        return segment
    if name == "read":
        from .files.reading import read

        return read
    if name == "Segmentation":
        from .inference.result import Segmentation

        return Segmentation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
