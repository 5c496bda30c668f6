"""Packages for pip: all folders of the library and, from the top-level Resources, its data as a package within it.

All else is in pyproject.toml, which cannot name a package beside those that are found.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("SEBrainSeg"), "SEBrainSegLib.Resources"],
    package_dir={"": "SEBrainSeg", "SEBrainSegLib.Resources": "Resources"},
)
