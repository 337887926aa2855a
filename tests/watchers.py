"""A watcher of studies that draws nothing."""

from __future__ import annotations


class Quiet:
    """Keeps what it was told at the beginning."""

    def begin(self, total, done):
        self.total, self.done = total, done

    def event(self, event):
        pass
