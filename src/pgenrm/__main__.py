"""`python -m pgenrm` is the command line."""

from pgenrm.cli import main

if __name__ == "__main__":
    main()
