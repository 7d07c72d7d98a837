"""Commands that print the figures of the README and of the model cards, run as the `pnp` command runs."""

from pnp_cli.allocation import tune_allocation

tune_allocation()
