"""`python -m tfos_job COMMAND` is `tfos-job COMMAND`."""

import sys

from tfos_job.cli import main

if __name__ == "__main__":
    sys.exit(main())
