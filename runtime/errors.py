"""The one family of errors that a user can cause, and of warnings. Each message is a line that says what to do next."""

LONGEST_MESSAGE = 600  # characters: some lines of a terminal
CUT = " [...] "


class PocketbertError(ValueError):
    """Bad input or bad usage: the command line prints the message and exits with 2.

    Messages quote what a file says, which may be anything: what cannot be shown in a line is escaped, and of a long
    message the middle is left out.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST_MESSAGE:
            half = (LONGEST_MESSAGE - len(CUT)) // 2
            message = message[:half] + CUT + message[-half:]
        super().__init__("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message))


class BundleError(PocketbertError):
    """The bundle is missing, altered, incomplete or of another version."""


class EngineError(PocketbertError):
    """An engine is not installed, cannot open an artifact, or computes something else than it should."""


class PocketbertWarning(UserWarning):
    """It works, at a cost that the message names."""
