"""`python -m lowtide`: the same as the `lowtide` command."""

from lowtide.cli.main import main

if __name__ == "__main__":
    main()
