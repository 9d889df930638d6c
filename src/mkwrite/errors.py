"""What every floor may raise beside plain OSError, ValueError and TypeError."""


class Unsupported(OSError):
    """This machine, kernel or user cannot do what was asked; the message names the cure."""


class SlowTrackingWarning(RuntimeWarning):
    """Tracking works, by hashing every page; told once a process, with the reason."""
