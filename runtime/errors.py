"""The one family of errors that a user can cause. Each message is a line that says what to do next."""


class PocketbertError(ValueError):
    """Bad input or bad usage: the command line prints the message and exits with 2."""


class BundleError(PocketbertError):
    """The bundle is missing, altered, incomplete or of another version."""


class EngineError(PocketbertError):
    """An engine is not installed, cannot open an artifact, or computes something else than it should."""
