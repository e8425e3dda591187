"""Settings: what may differ between installations, and the only reader of the environment.

A setting comes from the environment, else from the `stack.env` that `mercuria up` writes into the data
directory, else from its default. A value that cannot be used stops the start with one sentence that names
the variable and says what it may be.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from socket import gethostname
from urllib.parse import quote

DEFAULT_DATA_DIR = Path("data")
STACK_ENV = "stack.env"
LEG_KEY_BYTES = 32
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  compared with, not bound
LOOPBACK_NETWORKS = "127.0.0.0/8,::1/128"
WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_POSTGRESQL = ("postgresql", "postgres")

Network = IPv4Network | IPv6Network


class SettingError(Exception):
    """A setting cannot be used; the message names it and says what it may be."""

    def __init__(self, name: str, value: str, may_be: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used: it must be {may_be}.")
        self.name = name


class StackEnvError(SettingError):
    """The `stack.env` of a data directory cannot be read; the message says why, and what to do."""

    def __init__(self, file: Path, why: str) -> None:
        Exception.__init__(
            self, f"{file} cannot be read: {why}; it must be as `mercuria up` wrote it, or not be there."
        )
        self.name = str(file)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done: `count` times within any `window_s` seconds."""

    count: int
    window_s: int


@dataclass(frozen=True, slots=True)
class Settings:
    """One installation's settings, as one worker or one command sees them."""

    data_dir: Path
    """Where the embedded parts and the workers keep their files."""
    kafka: str
    """Bootstrap servers, `host:port[,host:port…]`."""
    database: str
    """PostgreSQL as the application's role, as a libpq URL."""
    database_owner: str
    """The same database as the role that owns the schema, for migrations and rebuilds."""
    redis: str
    """Redis, as a `redis://` or `rediss://` URL."""
    partitions: int
    """How many partitions every topic has. Fixed for the life of an installation."""
    replication: int
    """How many brokers keep each topic."""
    standbys: int
    """How many other workers keep a copy of each partition's tables."""
    worker: str
    """This worker's name: its tables live in `<data_dir>/<worker>`."""
    http_host: str
    """The address that the HTTP API binds."""
    http_port: int
    """The port that all workers of one machine share."""
    worker_host: str
    """The host under which other workers reach this one."""
    worker_port: int
    """The port that is this worker's own."""
    max_body_bytes: int
    """The largest body of an HTTP request."""
    max_connections: int
    """How many HTTP connections a worker has open."""
    max_in_flight: int
    """How many HTTP requests a worker works on at once."""
    cors_origins: tuple[str, ...]
    """Whose pages may call the HTTP API from a browser."""
    token_keys_file: Path
    """Holds the keys that sign access tokens, as private JWKs."""
    token_issuer: str
    """What access tokens name as `iss`."""
    token_audience: str
    """What access tokens name as `aud`."""
    access_token_minutes: int
    """How long an access token is good."""
    refresh_idle_days: int
    """How long a refresh token is good."""
    refresh_family_days: int
    """How long a login can be refreshed in all."""
    password_min_characters: int
    """How long a new password is at least."""
    bcrypt_cost: int
    """The binary logarithm of bcrypt's rounds."""
    login_limit_address: Rate
    """How often one address may try to log in."""
    login_limit_account: Rate
    """How often a login to one account may be tried."""
    register_limit_address: Rate
    """How often one address may register."""
    register_limit_account: Rate
    """How often one e-mail address may be registered."""
    trusted_proxies: tuple[Network, ...]
    """Whose `X-Forwarded-For` is believed."""
    metrics_networks: tuple[Network, ...]
    """Who may see a worker's metrics, and why it is not ready, on a port that is open to clients."""
    leg_key_file: Path
    """Holds the key that authenticates legs: 32 bytes, as 64 hexadecimal digits."""
    receipts_days: int
    """How long a command id is remembered."""
    log_level: str
    """How much is logged."""
    log_format: str
    """How log lines look: `json`, `console`, or `auto`, which is `console` in a terminal and else `json`."""
    traces: bool
    """Whether spans are sent to OpenTelemetry's exporter, as its own variables say."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings of the process, or of `environ`.

        Raises:
            SettingError: a value cannot be used.
        """
        # An empty variable is no variable, as in a compose file that passes on what is not set.
        env = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
        _require_text(env)
        data_dir = Path(env.get("MERCURIA_DATA_DIR") or DEFAULT_DATA_DIR).absolute()
        env = _with_stack_env(read_stack_env(data_dir), env)
        _require_text(env)
        http_port = _port(env, "MERCURIA_HTTP_PORT", 6066)
        database = _url(env, "MERCURIA_DATABASE", "postgresql://127.0.0.1:5432/mercuria", _POSTGRESQL)
        return cls(
            data_dir=data_dir,
            kafka=_servers(env, "MERCURIA_KAFKA", "127.0.0.1:9092"),
            database=database,
            database_owner=_url(env, "MERCURIA_DATABASE_OWNER", database, _POSTGRESQL),
            redis=_url(env, "MERCURIA_REDIS", "redis://127.0.0.1:6379/0", ("redis", "rediss")),
            partitions=_integer(env, "MERCURIA_PARTITIONS", 8, 1, 1024),
            replication=_integer(env, "MERCURIA_REPLICATION", 1, 1, 16),
            standbys=_integer(env, "MERCURIA_STANDBYS", 1, 0, 16),
            worker=_name(env, "MERCURIA_WORKER", "worker-1"),
            http_host=env.get("MERCURIA_HTTP_HOST") or "127.0.0.1",
            http_port=http_port,
            worker_host=env.get("MERCURIA_WORKER_HOST") or _reachable(env.get("MERCURIA_HTTP_HOST")),
            worker_port=_port(env, "MERCURIA_WORKER_PORT", http_port),
            max_body_bytes=_integer(env, "MERCURIA_MAX_BODY_BYTES", 64 * 1024, 1024, 16 * 1024 * 1024),
            max_connections=_integer(env, "MERCURIA_MAX_CONNECTIONS", 2000, 1, 100_000),
            max_in_flight=_integer(env, "MERCURIA_MAX_IN_FLIGHT", 1000, 1, 100_000),
            cors_origins=_origins(env, "MERCURIA_CORS_ORIGINS"),
            token_keys_file=Path(env.get("MERCURIA_TOKEN_KEYS_FILE") or data_dir / "token-keys.json"),
            token_issuer=env.get("MERCURIA_TOKEN_ISSUER") or "mercuria",
            token_audience=env.get("MERCURIA_TOKEN_AUDIENCE") or "mercuria",
            access_token_minutes=_integer(env, "MERCURIA_ACCESS_TOKEN_MINUTES", 15, 1, 24 * 60),
            refresh_idle_days=_integer(env, "MERCURIA_REFRESH_IDLE_DAYS", 30, 1, 3650),
            refresh_family_days=_integer(env, "MERCURIA_REFRESH_FAMILY_DAYS", 90, 1, 3650),
            password_min_characters=_integer(env, "MERCURIA_PASSWORD_MIN_CHARACTERS", 8, 8, 64),
            bcrypt_cost=_integer(env, "MERCURIA_BCRYPT_COST", 12, 4, 16),
            login_limit_address=_rate(env, "MERCURIA_LOGIN_LIMIT_ADDRESS", "30/minute"),
            login_limit_account=_rate(env, "MERCURIA_LOGIN_LIMIT_ACCOUNT", "10/minute"),
            register_limit_address=_rate(env, "MERCURIA_REGISTER_LIMIT_ADDRESS", "30/hour"),
            register_limit_account=_rate(env, "MERCURIA_REGISTER_LIMIT_ACCOUNT", "5/hour"),
            trusted_proxies=_networks(env, "MERCURIA_TRUSTED_PROXIES"),
            metrics_networks=_networks(env, "MERCURIA_METRICS_NETWORKS", LOOPBACK_NETWORKS),
            leg_key_file=Path(env.get("MERCURIA_LEG_KEY_FILE") or data_dir / "leg.key"),
            receipts_days=_integer(env, "MERCURIA_RECEIPTS_DAYS", 7, 1, 3650),
            log_level=_choice(env, "MERCURIA_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            log_format=_choice(env, "MERCURIA_LOG_FORMAT", "auto", ("auto", "json", "console")),
            traces=_traces(env),
        )

    @property
    def writes_json_logs(self) -> bool:
        """Whether log lines are JSON objects, and not for people to read."""
        return self.log_format == "json" or (self.log_format == "auto" and not sys.stdout.isatty())

    @property
    def worker_dir(self) -> Path:
        """Where this worker keeps its tables; two workers never share one."""
        return self.data_dir / self.worker

    def leg_key(self) -> bytes:
        """Read the installation's leg key.

        Raises:
            SettingError: the file is missing or does not hold 64 hexadecimal digits.
        """
        may_be = f"a file with {LEG_KEY_BYTES * 2} hexadecimal digits (`mercuria up` makes one)"
        try:
            key = bytes.fromhex(self.leg_key_file.read_text("ascii").strip())
        except (OSError, ValueError):
            raise SettingError("MERCURIA_LEG_KEY_FILE", str(self.leg_key_file), may_be) from None
        if len(key) != LEG_KEY_BYTES:
            raise SettingError("MERCURIA_LEG_KEY_FILE", str(self.leg_key_file), may_be)
        return key


def read_stack_env(data_dir: Path) -> dict[str, str]:
    """Return the `NAME=value` lines of a data directory's `stack.env`; none where there is no such file.

    Raises:
        StackEnvError: it cannot be read.
    """
    file = data_dir / STACK_ENV
    try:
        lines = file.read_text("utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError:
        raise StackEnvError(file, "it is not text in UTF-8") from None
    except OSError as error:
        raise StackEnvError(file, error.strerror or str(error)) from error
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: _unquoted(value) for name, _, value in pairs}


def in_url(host: str) -> str:
    """Write an address as URLs have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _with_stack_env(stack_env: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment says, and for the rest what stack.env says."""
    there = dict(stack_env)
    if env.get("MERCURIA_DATABASE", there.get("MERCURIA_DATABASE")) != there.get("MERCURIA_DATABASE"):
        # The owner there is that of another database.
        there.pop("MERCURIA_DATABASE_OWNER", None)
    return {**there, **env}


def _unquoted(value: str) -> str:
    """Read a value as a shell does; what no shell could read stays as it is, and is refused by its setting."""
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value


def _require_text(env: Mapping[str, str]) -> None:
    """Refuse values that would break lines and terminals apart, as a password file with its line's end does."""
    for name, value in env.items():
        if name.startswith("MERCURIA_") and _CONTROL(value):
            # It may hold a password.
            raise SettingError(name, "…", "text in UTF-8 without control characters, such as a line's end")


def _reachable(http_host: str | None) -> str:
    """Return the host of who binds `http_host`: itself, unless it stands for every address of this machine."""
    return gethostname() if http_host in EVERY_ADDRESS else http_host or "127.0.0.1"


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise SettingError(name, text, f"a whole number from {low} to {high}")
    return int(text)


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    return _integer(env, name, default, 1, 65535)


def _name(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    if len(text) > 100:
        raise SettingError(name, f"{text[:20]}…", "100 characters long at most")
    if not text.replace("-", "").replace("_", "").isalnum():
        raise SettingError(name, text, "letters, digits, hyphens and underscores")
    return text


def _servers(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    for server in text.split(","):
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise SettingError(name, text, "host:port, or several separated by commas")
    return text


def _url(env: Mapping[str, str], name: str, default: str, schemes: tuple[str, ...]) -> str:
    text = env.get(name) or default
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in schemes:
        # The value may hold a password, so only its scheme is shown; without one, it may be nothing but a password.
        raise SettingError(
            name, f"{scheme[:20] if separator else ''}…", f"a URL that starts with {schemes[0]}://"
        )
    return text


def _origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = env.get(name, "")
    origins = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    for origin in origins:
        # Exactly as a browser sends it: in small letters, and without a path.
        if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", origin):
            raise SettingError(name, text, "origins such as https://app.example.com, separated by commas")
    return origins


def _rate(env: Mapping[str, str], name: str, default: str) -> Rate:
    text = env.get(name) or default
    count, _, window = text.replace(" ", "").partition("/")
    if (
        not count.isascii()
        or not count.isdecimal()
        or not 1 <= int(count) <= 1_000_000
        or window not in WINDOWS_S
    ):
        raise SettingError(name, text, "so many times in a window, as in 30/minute: " + ", ".join(WINDOWS_S))
    return Rate(int(count), WINDOWS_S[window])


def _networks(env: Mapping[str, str], name: str, default: str = "") -> tuple[Network, ...]:
    text = env.get(name) or default
    try:
        return tuple(ip_network(network.strip()) for network in text.split(",") if network.strip())
    except ValueError:
        raise SettingError(name, text, "networks as in 10.0.0.0/8, separated by commas") from None


def _traces(env: Mapping[str, str]) -> bool:
    """Return whether the standard variables ask for traces. OpenTelemetry would send them also when none is set.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    prefix = "OTEL_EXPORTER_OTLP_"
    endpoints = [name for name in (f"{prefix}TRACES_ENDPOINT", f"{prefix}ENDPOINT") if name in env]
    exporter = _choice(env, "OTEL_TRACES_EXPORTER", "otlp" if endpoints else "none", ("otlp", "none"))
    if exporter == "none" or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    for name in (f"{prefix}TRACES_PROTOCOL", f"{prefix}PROTOCOL"):
        _choice(env, name, "http/protobuf", ("http/protobuf",))
    for name in endpoints:
        if not env[name].startswith(("http://", "https://")):
            raise SettingError(
                name, env[name].partition("://")[0][:20] + "…", "a URL that starts with http:// or https://"
            )
    return True


def _choice(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = (env.get(name) or default).lower()
    if text not in choices:
        raise SettingError(name, text, "one of " + ", ".join(choices))
    return text


@cache
def current_settings() -> Settings:
    """Return the settings of this process, which are read when they are first asked for.

    Raises:
        SettingError: a value cannot be used.
    """
    return Settings.from_env()


def shed_foreign_variables(settings: Settings) -> None:
    """Drop libpq's PG* variables where PostgreSQL is the stack's own: its password and manners are not theirs."""
    if quote(str(settings.data_dir.resolve())) in settings.database:
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]
