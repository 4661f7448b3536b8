"""`python -m honcho_exec` is the command line `honcho-exec`."""

from honcho_exec.cli.main import main

if __name__ == "__main__":
    main()
