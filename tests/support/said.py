"""A Progress that remembers what it was told."""

from spp_jax.runs import progress


class Recorder(progress.Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    @property
    def text(self):
        return "\n".join(self.lines)
