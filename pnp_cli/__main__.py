"""The `pnp` command, and `python -m pnp_cli`."""

import sys

from .interruption import stay_stopped, stop_cleanly


def main() -> None:
    """Run the command line; an interruption while it is being imported is one, too."""
    try:
        stop_cleanly()
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        stay_stopped()


if __name__ == "__main__":
    main()
