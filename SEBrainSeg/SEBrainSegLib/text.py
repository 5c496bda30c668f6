"""How numbers are written for people, in panel, command line and training alike."""

from .translation import tr as _


def duration(seconds: float) -> str:
    """Return a time span as ``40 s``, ``12 min`` or ``3 h 20 min``; at least a second."""
    if seconds < 99.5:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 90:
        return _("{minutes} min").format(minutes=minutes)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)
