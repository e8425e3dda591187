"""The environment in which a stack is started: what it decides, and what workers get of it.

A stack starts no server for which the environment names an external address (`MERCURIA_KAFKA`,
`MERCURIA_DATABASE`, `MERCURIA_REDIS`).
"""

from collections.abc import Mapping

from mercuria.config import Settings, in_url, read_stack_env
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.errors import StackError
from mercuria.embedded.ports import LOOPBACK, Ports, holder, is_free
from mercuria.embedded.worker import reachable_host

DEFAULT_HTTP_PORT = 6066
DEFAULT_PARTITIONS = 8


class Environment:
    """The variables that the starter of a stack has set."""

    def __init__(self, variables: Mapping[str, str], directory: DataDirectory) -> None:
        self.variables = dict(variables)
        self._directory = directory

    @property
    def host(self) -> str:
        """The address at which workers answer on this machine."""
        return reachable_host(self.variables)

    def require_valid(self) -> None:
        """Check all settings, before any part runs.

        Raises:
            SettingError: a value is invalid.
        """
        Settings.from_env(self.variables | {"MERCURIA_DATA_DIR": str(self._directory.path)})

    def is_external(self, name: str, own_port: int | None) -> bool:
        """Return whether the variable `name` is the address of an external server, not of the stack's own.

        A value that repeats the directory's stack.env, which the user may have sourced, does not count. The
        address there with this stack's own port is that of this stack's own server, and only this stack can
        start it.
        """
        address = self.variables.get(name)
        if not address:
            return False
        is_repeated = address == read_stack_env(self._directory.path).get(name)
        return not (is_repeated and own_port and f"{LOOPBACK}:{own_port}" in address)

    def choose_http_port(self, ports: Ports, wanted: int | None) -> int:
        """Return the port that workers share: the wanted one, or that of the last start, or a free one.

        Raises:
            StackError: the wanted port is taken.
        """
        wanted = wanted or int(self.variables.get("MERCURIA_HTTP_PORT") or 0)
        if not wanted:
            return ports.choose("http", DEFAULT_HTTP_PORT)
        if not is_free(wanted):
            by = holder(wanted)
            raise StackError(
                f"Port {wanted} is taken{f' by {by}' if by else ''}; choose another one with --http-port."
            )
        return ports.remember("http", wanted)

    def choose_partitions(self, wanted: int | None) -> int:
        """Return the number of partitions, which never changes in an installation.

        Raises:
            StackError: the installation has another number than the wanted one.
        """
        wanted = wanted or int(self.variables.get("MERCURIA_PARTITIONS") or 0)
        kept = int(read_stack_env(self._directory.path).get("MERCURIA_PARTITIONS") or 0)
        if wanted and kept and wanted != kept:
            raise StackError(
                f"MERCURIA_PARTITIONS={wanted} cannot be used: {self._directory.path} was made with {kept} partitions"
                f" and keeps them; {wanted} need a data directory of their own."
            )
        return kept or wanted or DEFAULT_PARTITIONS

    def of_clients(self, addresses: Mapping[str, str], http_port: int, partitions: int) -> dict[str, str]:
        """Return the MERCURIA_* variables with which a worker or a client finds the stack."""
        return {
            "MERCURIA_DATA_DIR": str(self._directory.path),
            "MERCURIA_URL": f"http://{in_url(self.host)}:{http_port}",
            **addresses,
            "MERCURIA_HTTP_PORT": str(http_port),
            "MERCURIA_PARTITIONS": str(partitions),
        }

    def of_workers(self, found: Mapping[str, str], *, has_own_database: bool) -> dict[str, str]:
        """Return the environment of the workers, completed by the variables with which they find the stack."""
        # People read these logs, both in files and in the message when a worker ends.
        environ = {"MERCURIA_LOG_FORMAT": "console", **self.variables, **found}
        if has_own_database:
            # libpq would take its password and other settings from there, which are meant for another server.
            return {name: value for name, value in environ.items() if not name.startswith("PG")}
        return environ
