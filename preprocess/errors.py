"""The errors that a user can cause or mend; `cascade.cli` turns each into one line and its exit code."""

from pathlib import Path


class CascadeError(Exception):
    """A problem outside the program. The message names the thing, the value and the remedy, in one line."""

    exit_code = 1


class UsageError(CascadeError):
    """The command or the settings are wrong (exit 2)."""

    exit_code = 2


class InputError(CascadeError):
    """An image, label or dataset cannot be used (exit 3)."""

    exit_code = 3


class ModelError(CascadeError):
    """A model file or the state of a training cannot be used (exit 4)."""

    exit_code = 4


class ResourceError(CascadeError):
    """Disk, memory, a lock or a permission is missing (exit 5)."""

    exit_code = 5


class BatchError(CascadeError):
    """Some cases of a batch failed; the others are done (exit 6)."""

    exit_code = 6


def missing(path: Path) -> InputError:
    """What is said of an input that is not there."""
    return InputError(f"{path} does not exist; check the path")
