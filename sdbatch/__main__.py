"""`python -m sdbatch` is the command line."""

from sdbatch.cli import main

main()
