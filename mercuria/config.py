"""Settings: the values that may differ between installations. Only this module reads the environment.

A setting comes from the environment, else from the `stack.env` that `mercuria up` writes into the data
directory, else from its default. An invalid value stops the start with one sentence, which names the
variable and its valid values.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
    """A setting is invalid. The message names it and its valid values."""

    def __init__(self, name: str, value: str, may_be: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used: it must be {may_be}.")
        self.name = name


class StackEnvError(SettingError):
    """The `stack.env` of a data directory cannot be read. The message gives the reason and a remedy."""

    def __init__(self, file: Path, why: str) -> None:
        Exception.__init__(
            self, f"{file} cannot be read: {why}; it must be as `mercuria up` wrote it, or not be there."
        )
        self.name = str(file)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit: at most `count` times within any `window_s` seconds."""

    count: int
    window_s: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one installation, as one worker or one command reads them."""

    data_dir: Path
    """The directory in which the embedded servers and the workers keep their files."""
    kafka: str
    """Bootstrap servers, `host:port[,host:port…]`."""
    database: str
    """PostgreSQL with the application's role, as a libpq URL."""
    database_owner: str
    """The same database with the role that owns the schema, for migrations and rebuilds."""
    redis: str
    """Redis, as a `redis://` or `rediss://` URL."""
    partitions: int
    """The number of partitions of every topic. It is fixed for the life of an installation."""
    replication: int
    """The number of brokers that replicate each topic."""
    standbys: int
    """The number of other workers that keep a standby copy of each partition's tables."""
    kafka_session_ms: int
    """How long after a worker's last heartbeat Kafka gives its partitions to others."""
    kafka_heartbeat_ms: int
    """The time between two heartbeats of a worker to Kafka: at most a third of the session."""
    worker: str
    """This worker's name: its tables live in `<data_dir>/<worker>`."""
    http_host: str
    """The address that the HTTP API binds."""
    http_port: int
    """The port that all workers of one machine share."""
    worker_host: str
    """The host under which other workers reach this one."""
    worker_port: int
    """This worker's own port."""
    max_body_bytes: int
    """The maximum size of an HTTP request's body."""
    max_connections: int
    """The maximum number of open HTTP connections of a worker."""
    max_in_flight: int
    """The maximum number of HTTP requests that a worker processes at once."""
    cors_origins: tuple[str, ...]
    """The origins whose pages may call the HTTP API from a browser."""
    token_keys_file: Path
    """The file of the keys that sign access tokens, as private JWKs."""
    token_issuer: str
    """The `iss` claim of access tokens."""
    token_audience: str
    """The `aud` claim of access tokens."""
    access_token_minutes: int
    """The lifetime of an access token."""
    refresh_idle_days: int
    """The lifetime of a refresh token."""
    refresh_family_days: int
    """How long after a login its session can still be refreshed."""
    password_min_characters: int
    """The minimum length of a new password."""
    bcrypt_cost: int
    """The binary logarithm of bcrypt's rounds."""
    login_limit_address: Rate
    """The limit for login attempts from one address."""
    login_limit_account: Rate
    """The limit for login attempts to one account."""
    register_limit_address: Rate
    """The limit for registrations from one address."""
    register_limit_account: Rate
    """The limit for registrations of one e-mail address."""
    trusted_proxies: tuple[Network, ...]
    """The networks of the proxies whose `X-Forwarded-For` is trusted."""
    metrics_networks: tuple[Network, ...]
    """The networks that may read metrics and the reasons of unreadiness on a port that is open to clients."""
    leg_key_file: Path
    """The file of the key that authenticates legs: 32 bytes, as 64 hexadecimal digits."""
    receipts_days: int
    """How long a command id is remembered."""
    log_level: str
    """The log level."""
    log_format: str
    """The log format: `json`, `console`, or `auto`, which is `console` in a terminal and else `json`."""
    traces: bool
    """Whether spans are sent to OpenTelemetry's exporter, as OpenTelemetry's own variables configure."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings of the process, or of `environ`.

        Raises:
            SettingError: a value is invalid.
        """
        # An empty variable counts as unset, because a compose file passes on unset variables as empty ones.
        env = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
        _require_text(env)
        data_dir = Path(env.get("MERCURIA_DATA_DIR") or DEFAULT_DATA_DIR).absolute()
        env = _with_stack_env(read_stack_env(data_dir), env)
        _require_text(env)
        http_port = _port(env, "MERCURIA_HTTP_PORT", 6066)
        session_ms = _integer(env, "MERCURIA_KAFKA_SESSION_MS", 10_000, 1000, 60_000)
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
            kafka_session_ms=session_ms,
            kafka_heartbeat_ms=_heartbeat_ms(env, session_ms),
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
        """Whether log lines are JSON objects rather than text for people to read."""
        return self.log_format == "json" or (self.log_format == "auto" and not sys.stdout.isatty())

    @property
    def worker_dir(self) -> Path:
        """The directory in which this worker keeps its tables; two workers never share one."""
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
    """Return the `NAME=value` lines of a data directory's `stack.env`; none if the file does not exist.

    Raises:
        StackEnvError: the file cannot be read.
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
    """Return an address in the form that URLs need: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _with_stack_env(stack_env: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment, completed by those of stack.env."""
    there = dict(stack_env)
    if env.get("MERCURIA_DATABASE", there.get("MERCURIA_DATABASE")) != there.get("MERCURIA_DATABASE"):
        # The owner in stack.env belongs to another database.
        there.pop("MERCURIA_DATABASE_OWNER", None)
    return {**there, **env}


def _unquoted(value: str) -> str:
    """Unquote a value as a shell does. A malformed one stays as it is, and its setting rejects it."""
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value


def _require_text(env: Mapping[str, str]) -> None:
    """Reject values with characters that break lines or terminals, such as a password with its line feed."""
    for name, value in env.items():
        if name.startswith("MERCURIA_") and _CONTROL(value):
            # The value may hold a password.
            raise SettingError(name, "…", "text in UTF-8 without control characters, such as a line's end")


def _reachable(http_host: str | None) -> str:
    """Return the host that reaches a server bound to `http_host`: the same, unless it means every address."""
    return gethostname() if http_host in EVERY_ADDRESS else http_host or "127.0.0.1"


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise SettingError(name, text, f"a whole number from {low} to {high}")
    return int(text)


def _heartbeat_ms(env: Mapping[str, str], session_ms: int) -> int:
    """Return the time between heartbeats, which leaves room for two that are lost, as Kafka advises."""
    name, most_ms = "MERCURIA_KAFKA_HEARTBEAT_MS", session_ms // 3
    heartbeat_ms = _integer(env, name, min(2000, most_ms), 100, 20_000)
    if heartbeat_ms > most_ms:
        raise SettingError(
            name, str(heartbeat_ms), f"at most {most_ms}, a third of MERCURIA_KAFKA_SESSION_MS"
        )
    return heartbeat_ms


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
        # The value may hold a password, so the message shows only its scheme. Without a scheme, all of it may be one.
        raise SettingError(
            name, f"{scheme[:20] if separator else ''}…", f"a URL that starts with {schemes[0]}://"
        )
    return text


def _origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = env.get(name, "")
    origins = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    for origin in origins:
        # Exactly as a browser sends it: in lower case, and without a path.
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
    """Return whether the standard variables enable traces. OpenTelemetry would send them even if none is set.

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


_current: Settings | None = None


def current_settings() -> Settings:
    """Return the settings that this process uses; the first call reads them from its environment.

    Raises:
        SettingError: a value is invalid.
    """
    if _current is None:
        use_settings(Settings.from_env())
    assert _current is not None
    return _current


def use_settings(settings: Settings) -> None:
    """Have this process use other settings than its environment's."""
    global _current
    _current = settings


def shed_foreign_variables(settings: Settings) -> None:
    """Drop libpq's PG* variables if PostgreSQL is the stack's own: they are meant for another server."""
    if quote(str(settings.data_dir.resolve())) in settings.database:
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]
