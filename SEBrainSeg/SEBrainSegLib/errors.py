"""The one exception that users see."""


class SEBrainSegError(Exception):
    """Something that the user can mend; its message is one sentence that says what is wrong and what to do."""

    @property
    def sentence(self) -> str:
        """The message as it was given: a ``translation.Text``, which ``str(error)`` is not, can still be translated."""
        return self.args[0] if self.args else ""


class UnlikelyError(SEBrainSegError):
    """What was found is unlikely to be right; ``accept_unlikely`` shows it all the same."""


class Cancelled(Exception):
    """The caller's ``cancelled()`` answered true; nothing was written."""
