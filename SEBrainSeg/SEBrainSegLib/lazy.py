"""SimpleITK, imported when it is first used: it takes a while, for which a user would wait as the panel opens."""

import importlib
from typing import TYPE_CHECKING


class Lazy:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self.name), attribute)


if TYPE_CHECKING:
    import SimpleITK as sitk
else:
    sitk = Lazy("SimpleITK")
