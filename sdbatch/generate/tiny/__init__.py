"""The tiny models that come with the package, and how they were made."""
