"""The one kind of error that a user, not a programmer, has to mend."""


class UserError(ValueError):
  """Something the user gave is missing, broken or of the wrong kind.

  The message is one sentence that says what is wrong, where, and what to do
  about it. The command line prints it without a traceback and exits with 1.
  """
