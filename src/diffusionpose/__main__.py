"""``python -m diffusionpose``: the command line, for where its program is not on the PATH."""

import sys

from diffusionpose.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
