"""Translations of what the panel shows: Slicer's, if there is one, which finds a text by the file that it is in."""

try:
    from slicer.i18n import tr
except ImportError:

    def tr(text):
        """Return the text as it is."""
        return text
