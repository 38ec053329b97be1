"""Run `commercectl`, or say what is missing."""

import sys


def main() -> None:
    """Run `commercectl`, or say how to install what it needs."""
    try:
        from commerce.client.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "grpc_health", "rich", "yaml"}:
            raise
        sys.exit(f"commercectl needs the package {error.name}: pip install 'commerce-client[cli]'")
    run()


if __name__ == "__main__":
    main()
