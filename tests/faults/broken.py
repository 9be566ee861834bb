"""What a case raises where the project did not hold."""


class Broken(Exception):
    """The project did not hold."""

    def __init__(self, kind: str, detail: str):
        """Takes the kind of failure, a word that the scoreboard counts, and what was seen."""
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class NotTried(Exception):
    """This machine does not allow the fault; the message says what it lacks."""
