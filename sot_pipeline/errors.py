"""The errors that a user can cause, and can mend."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found (with file and line where there is one), what was
    expected, and what to do. The command line prints it without a traceback.
    """
