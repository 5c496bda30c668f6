"""Whole-brain segmentation with squeeze & excitation networks; the core needs neither Slicer nor Qt.

``segment(image, se="scse")`` takes a ``SimpleITK.Image`` and returns a ``Segmentation``; see :mod:`.inference` and
:mod:`.segmentation`.
"""

from .errors import Cancelled, SEBrainSegError, UnlikelyError

__all__ = ["Cancelled", "SEBrainSegError", "Segmentation", "UnlikelyError", "segment"]


def __getattr__(name):
    # torch is imported when first needed, so that Slicer starts without it.
    if name == "segment":
        from .inference import segment

        return segment
    if name == "Segmentation":
        from .segmentation import Segmentation

        return Segmentation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
