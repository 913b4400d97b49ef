"""A revision that tests state where nothing is to be digested: it has the form of a commit."""

PINNED = "9" * 40
