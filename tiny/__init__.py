"""How the builtin models were made: the drawn world, training, judges and measuring. Not part of the package."""
