"""`python -m service` is `commerce`."""

from service.cli.main import main

if __name__ == "__main__":
    main()
