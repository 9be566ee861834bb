"""The one exception of the package that is about its input, not about its code."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that names the value.

    The commands print it without a traceback and exit with code 2.
    """
