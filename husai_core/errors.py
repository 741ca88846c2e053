"""The error that a user reads."""


class UserError(Exception):
    """A mistake of the user, or a request that cannot be met; its message is one line for the user."""
