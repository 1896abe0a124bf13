"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message names the file or option at fault and the cure. The command line prints it as one
    line and exits with status 1; in Python it is an ordinary ``ValueError``.
    """
