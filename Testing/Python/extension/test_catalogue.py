"""What Slicer's extension index asks for: a catalogue entry, metadata, icon and screenshots that agree."""

import fnmatch
import json
import re
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def metadata(name):
    return re.search(rf'set\(EXTENSION_{name} "([^"]*)"\)', CMAKE).group(1)


def size_of_png(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def pictured(url):
    """The file of this repository that a raw URL of it shows."""
    home = metadata("HOMEPAGE").replace("github.com", "raw.githubusercontent.com")
    assert url.startswith(f"{home}/main/"), url
    return ROOT / url[len(f"{home}/main/") :]


def test_the_catalogue_entry_is_the_projects():
    project = re.search(r"project\((\w+)\)", CMAKE).group(1)
    assert not project.startswith("Slicer")
    entry = json.loads((ROOT / f"Resources/ExtensionsIndex/{project}.json").read_text(encoding="utf-8"))
    assert entry["scm_url"] == metadata("HOMEPAGE")
    assert entry["category"] == metadata("CATEGORY")
    assert entry["build_dependencies"] == metadata("DEPENDS").split()
    assert entry["$schema"].startswith("https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/")


def test_icon_and_screenshots_are_there():
    assert size_of_png(pictured(metadata("ICONURL"))) == (128, 128)
    for url in metadata("SCREENSHOTURLS").split():
        assert min(size_of_png(pictured(url))) >= 400


def test_every_resource_that_is_read_is_packed():
    packed = re.search(
        r'"SEBrainSegLib.Resources" = (\[[^\]]*\])', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    library = (ROOT / "SEBrainSeg" / "SEBrainSegLib").rglob("*.py")
    names = {
        name for path in library for name in re.findall(r'resource\("([^"{]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert {"Structures.csv", "Expectations.csv", "Models/facts.csv"} <= names
    for name in names:
        assert (ROOT / "Resources" / name).exists(), name
        assert any(fnmatch.fnmatch(name, pattern) for pattern in json.loads(packed.group(1))), name
