"""The schema that the migrations make, as text: `make schema` writes it into tests/data/schema.sql for reviewers.

The test beside it compares both, so a migration that changes the schema shows what it changes.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mercuria.embedded.postgres import BINARIES
from mercuria.embedded.stack import Stack
from mercuria.postgres.migrate import migrate
from tests.embedded.conftest import only

FILE = Path(__file__).parents[1] / "data" / "schema.sql"

_NOISE = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)?$\n?", re.MULTILINE)


def schema_of(url: str) -> str:
    """Return the schema of a database with its privileges, without what says nothing about it."""
    command = [str(BINARIES / "pg_dump"), "--schema-only", "--no-owner", "--exclude-table=*yoyo*", url]
    dumped = subprocess.run(command, env={"LANG": "C.UTF-8"}, capture_output=True, text=True, check=True)
    return _NOISE.sub("", dumped.stdout)


def main() -> None:
    """Write the file."""
    with (
        tempfile.TemporaryDirectory(prefix="mercuria-schema-") as directory,
        Stack(Path(directory) / "data", environ=only("database"), supervise=False) as stack,
    ):
        migrate(stack.postgres.owner_url)
        FILE.write_text(schema_of(stack.postgres.owner_url), "utf-8")
    sys.stdout.write(f"{FILE.name} is written.\n")


if __name__ == "__main__":
    main()
