"""Slicer's ``QProcess`` as a :class:`~.background.Process`."""

import qt


class QtProcess:
    """A child process whose output arrives through Qt's event loop; see :class:`~.background.Process`."""

    def __init__(self, on_output, on_errors, on_end):
        self.on_output, self.on_errors, self.on_end = on_output, on_errors, on_end
        self.process = qt.QProcess()
        self.has_started = False
        self.process.started.connect(self.started)
        self.process.readyReadStandardOutput.connect(self.read_output)
        self.process.readyReadStandardError.connect(self.read_errors)
        self.process.finished.connect(self.ended)
        self.process.errorOccurred.connect(self.troubled)

    def start(self, program, arguments, environment):
        """Start it; see :class:`~.background.Process`."""
        variables = qt.QProcessEnvironment.systemEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self.process.setProcessEnvironment(variables)
        self.process.start(program, arguments)

    def kill(self):
        """End it at once; see :class:`~.background.Process`.

        With the process its stdin closes: by that a Python which it only launched ends, a moment later.
        """
        self.process.kill()
        self.process.waitForFinished(10000)

    def started(self, *_):
        self.has_started = True

    def read_output(self, *_):
        self.on_output(bytes(self.process.readAllStandardOutput().data()))

    def read_errors(self, *_):
        self.on_errors(bytes(self.process.readAllStandardError().data()))

    def ended(self, *_):
        self.read_output()
        self.read_errors()
        crashed = self.process.exitStatus() == qt.QProcess.CrashExit
        self.end(None if crashed else self.process.exitCode())

    def troubled(self, *_):
        # A process that has started always finishes too, whatever its trouble.
        if not self.has_started:
            self.end(None)

    def end(self, status):
        # Its owner lets go of it now, within one of its signals, where a QProcess must not be destroyed; not by a timer
        # either, as the owner may have events handled.
        self.process.deleteLater()
        self.on_end(status)
