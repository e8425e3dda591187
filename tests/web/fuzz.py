"""Fuzzing: schemathesis asks a running stack all that the OpenAPI document allows, and much that it does not.

    python -m tests.web.fuzz --max-examples 200    # on a stack of its own, as `make fuzz` does

It acts as two users and an operator, follows the document's links, and checks every answer against the document.
"""

import json
import secrets
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from mercuria.embedded.stack import Stack
from tests.conftest import MANY_PEOPLE
from tests.embedded.conftest import MERCURIA, clean_environ
from tests.harness.stacks import fresh_stack

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
PASSWORD = "seven otters juggle"
ROLES = {"zoe": "user", "operator": "operator", "max": "user"}


def fuzz(stack: Stack, directory: Path, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against a stack; `directory` holds its files. The exit code is 0 if all is well."""
    entries = [sign_up(stack, name, role) for name, role in ROLES.items()]
    (directory / "people.json").write_text(json.dumps({"auth": entries}))
    seed = str(secrets.randbelow(2**32))
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(HERE / "schemathesis.toml"), "run", "--no-color"),
        *("--checks", "all", "--continue-on-failure", "--seed", seed, *options),
        f"{stack.url}/api/v1/openapi.json",
    ]
    environ = clean_environ() | {"SCHEMATHESIS_HOOKS": str(HERE / "fuzz_hooks.py"), "COLUMNS": "120"}
    return subprocess.run(command, cwd=directory, env=environ, text=True, **more)


def sign_up(stack: Stack, name: str, role: str) -> dict[str, Any]:
    """Make an account, and return how schemathesis logs in to it."""
    email = f"{name}-{secrets.token_hex(4)}@example.com"
    subprocess.run(
        [*MERCURIA, "user", "create", email, "--role", role, "--data-dir", str(stack.directory.path)],
        env=clean_environ() | MANY_PEOPLE,
        input=f"{PASSWORD}\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    token = {
        "extractFrom": "body",
        "extractSelector": "/access_token",
        "sendIn": "header",
        "sendName": "Authorization",
        "sendTemplate": "Bearer {token}",
    }
    login = {
        "endpoint": "/api/v1/login",
        "verb": "POST",
        "contentType": "application/json",
        "payloadRaw": json.dumps({"email": email, "password": PASSWORD}),
        "token": token,
    }
    return {"name": name, "loginEndpointAuth": login}


def main() -> int:
    """Run it on a stack of its own, with the options that schemathesis has."""
    with tempfile.TemporaryDirectory(prefix="mercuria-fuzz-") as temporary:
        directory = Path(temporary)
        (directory / "fuzz").mkdir()
        with fresh_stack(directory / "data", 2, print, MANY_PEOPLE) as stack:
            return fuzz(stack, directory / "fuzz", *sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
