"""The router without micro-batches: `python -m bench.servers.ungathered_router serve ..`."""

import sys

from router.cli import main
from router.serving import loading

if __name__ == "__main__":
    # No model is quick enough with many rows to be worth it.
    loading._GAIN = 0.0  # noqa: SLF001
    main(sys.argv[1:], prog_name="turnout")
