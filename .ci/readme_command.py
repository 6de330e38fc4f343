"""Print a command of README.md, so that what is tested is what a reader pastes: ``readme_command.py demo|test``."""

import re
import sys
from pathlib import Path

readme = Path(__file__).parent.parent.joinpath("README.md").read_text("utf-8")
found = re.search(rf"<!-- {re.escape(sys.argv[1])} -->\n```sh\n(.*?)```", readme, re.DOTALL)
if found is None:
    sys.exit(f"README.md has no command marked {sys.argv[1]!r}")
print(found[1])  # noqa: T201 -- it is for a shell
