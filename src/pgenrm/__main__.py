"""`python -m pgenrm` is the command line."""

from pgenrm.cli import main

main()
