"""The one exception that users see."""


class SEBrainSegError(Exception):
    """Something that the user can mend; its message is one sentence that says what is wrong and what to do."""


class UnlikelyError(SEBrainSegError):
    """What was found is unlikely to be right; ``accept_unlikely`` shows it all the same."""


class Cancelled(Exception):
    """The caller's ``cancelled()`` answered true; nothing was written."""
