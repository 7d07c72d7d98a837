"""The `pnp` command, and `python -m pnp_cli`."""

import sys


def main() -> None:
    """Run the command line; an interruption while it is being imported is one, too."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
