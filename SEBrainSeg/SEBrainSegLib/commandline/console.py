"""Standard output and standard error that decide about nothing: a line that cannot be shown stops no run."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SILENCE = 10.0  # seconds after which a run that still goes on says so


class Stream:
    """A text stream that never raises an error: it escapes what it cannot encode, and once it fails it is silent.

    Args:
        stream: the stream to write to, such as ``sys.stdout``; ``None`` where there is none.

    Attributes:
        failure: the first :class:`OSError` or :class:`ValueError` of the stream, or ``None``.
    """

    def __init__(self, stream):
        self.stream, self.failure = stream, None

    def write(self, text: str) -> int:
        """Write text as well as can be; return its length."""
        if self.stream is not None and self.failure is None:
            try:
                try:
                    self.stream.write(text)
                except UnicodeEncodeError:
                    encoding = self.stream.encoding or "ascii"
                    self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except BlockingIOError:
                pass  # a terminal that does not keep up loses a line
            except (OSError, ValueError) as error:
                self.fail(error)
        return len(text)

    def flush(self) -> None:
        """Bring out what was written, if that is possible."""
        if self.stream is not None and self.failure is None:
            try:
                self.stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                self.fail(error)

    def isatty(self) -> bool:
        """Return whether it is a terminal that still listens."""
        try:
            return self.stream is not None and self.failure is None and self.stream.isatty()
        except ValueError:  # closed
            return False

    def fail(self, error: Exception) -> None:
        """Be silent from here on, at the end of the interpreter, too, which writes what is left in the buffer."""
        self.failure = error
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
        except (OSError, ValueError):
            pass  # it has no file of the system's

    def __getattr__(self, name):
        return getattr(self.stream, name)


def is_lost(stream: Any) -> bool:
    """Return whether something that was to be kept could not be written; who closes a pipe has seen enough."""
    failure = getattr(stream, "failure", None)
    return failure is not None and not isinstance(failure, BrokenPipeError)


@contextmanager
def steady(program: str) -> Iterator["Stream"]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that raise no error; say on the latter if the former fails.

    Descriptors that the shell closed (``>&-``) are opened, so that no file of results gets the number of one of them
    and with it what libraries print.

    Args:
        program: what the line on ``sys.stderr`` begins with.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = output, errors = Stream(sys.stdout), Stream(sys.stderr)
    try:
        yield output
    finally:
        output.flush()
        if is_lost(output):
            reason = getattr(output.failure, "strerror", None) or output.failure
            errors.write(f"{program}: Standard output cannot be written ({reason}); all else went on.\n")
        errors.flush()
        sys.stdout, sys.stderr = before


class Pulse:
    """Calls a function, in a thread of its own, whenever there was no call and no beat for :data:`SILENCE`.

    Args:
        tell: called without arguments.
    """

    def __init__(self, tell):
        self.tell, self.last = tell, time.monotonic()
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def beat(self) -> None:
        """Note that something was told."""
        self.last = time.monotonic()

    def run(self) -> None:
        while not self.closed.wait(max(0.0, self.last + SILENCE - time.monotonic())):
            if time.monotonic() >= self.last + SILENCE:
                self.beat()
                self.tell()

    def close(self) -> None:
        """End the calls."""
        self.closed.set()
