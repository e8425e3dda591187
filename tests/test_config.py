"""Settings: defaults, where they come from, and the sentence for each value that cannot be used."""

import shlex
import stat
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from socket import gethostname

import pytest

from mercuria.config import Rate, SettingError, Settings, read_stack_env

RATE = "so many times in a window, as in 30/minute: second, minute, hour, day"


def settings(data_dir: Path, **environ: str) -> Settings:
    """Read the settings of an installation in `data_dir`."""
    return Settings.from_env({"MERCURIA_DATA_DIR": str(data_dir)} | environ)


def test_defaults_lead_to_this_machine(tmp_path: Path) -> None:
    assert settings(tmp_path) == Settings(
        data_dir=tmp_path,
        kafka="127.0.0.1:9092",
        database="postgresql://127.0.0.1:5432/mercuria",
        database_owner="postgresql://127.0.0.1:5432/mercuria",
        redis="redis://127.0.0.1:6379/0",
        partitions=8,
        replication=1,
        standbys=1,
        kafka_session_ms=10_000,
        kafka_heartbeat_ms=2_000,
        worker="worker-1",
        http_host="127.0.0.1",
        http_port=6066,
        worker_host="127.0.0.1",
        worker_port=6066,
        max_body_bytes=65536,
        max_connections=2000,
        max_in_flight=1000,
        cors_origins=(),
        token_keys_file=tmp_path / "token-keys.json",
        token_issuer="mercuria",
        token_audience="mercuria",
        access_token_minutes=15,
        refresh_idle_days=30,
        refresh_family_days=90,
        password_min_characters=8,
        bcrypt_cost=12,
        login_limit_address=Rate(30, 60),
        login_limit_account=Rate(10, 60),
        register_limit_address=Rate(30, 3600),
        register_limit_account=Rate(5, 3600),
        trusted_proxies=(),
        metrics_networks=(IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        leg_key_file=tmp_path / "leg.key",
        receipts_days=7,
        log_level="info",
        log_format="auto",
        traces=False,
    )
    assert settings(tmp_path).worker_dir == tmp_path / "worker-1"


def test_the_environment_comes_before_stack_env_and_that_before_defaults(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("# a comment\nMERCURIA_KAFKA=a:1\nMERCURIA_REDIS='redis://b:2/0'\n\n")
    read = settings(tmp_path, MERCURIA_KAFKA="c:3")
    assert (read.kafka, read.redis, read.partitions) == ("c:3", "redis://b:2/0", 8)


def test_the_owner_in_stack_env_is_that_of_the_database_there(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text(
        "MERCURIA_DATABASE=postgres://app@a/d\nMERCURIA_DATABASE_OWNER=postgres://o@a/d\n"
    )
    sourced = settings(tmp_path, MERCURIA_DATABASE="postgres://app@a/d")
    assert sourced.database_owner == settings(tmp_path).database_owner == "postgres://o@a/d"
    elsewhere = settings(tmp_path, MERCURIA_DATABASE="postgres://app@b/d")
    assert elsewhere.database_owner == "postgres://app@b/d"
    both = settings(
        tmp_path, MERCURIA_DATABASE="postgres://app@b/d", MERCURIA_DATABASE_OWNER="postgres://o@b/d"
    )
    assert both.database_owner == "postgres://o@b/d"


def test_an_empty_variable_is_no_variable(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("MERCURIA_KAFKA=a:1\n")
    read = settings(tmp_path, MERCURIA_KAFKA="", MERCURIA_PARTITIONS="", MERCURIA_WORKER="")
    assert (read.kafka, read.partitions, read.worker) == ("a:1", 8, "worker-1")


def test_the_data_directory_is_absolute_whatever_is_said() -> None:
    assert Settings.from_env({}).data_dir == Path.cwd() / "data"
    assert Settings.from_env({"MERCURIA_DATA_DIR": "elsewhere"}).data_dir == Path.cwd() / "elsewhere"


def test_the_workers_port_is_the_shared_one_unless_it_is_said(tmp_path: Path) -> None:
    assert settings(tmp_path, MERCURIA_HTTP_PORT="80").worker_port == 80
    both = settings(tmp_path, MERCURIA_HTTP_PORT="80", MERCURIA_WORKER_PORT="81")
    assert (both.http_port, both.worker_port) == (80, 81)


def test_a_worker_is_reached_where_it_listens(tmp_path: Path) -> None:
    assert settings(tmp_path, MERCURIA_HTTP_HOST="10.0.0.7").worker_host == "10.0.0.7"
    assert settings(tmp_path, MERCURIA_HTTP_HOST="0.0.0.0").worker_host == gethostname()
    assert settings(tmp_path, MERCURIA_WORKER_HOST="worker-7").worker_host == "worker-7"


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("MERCURIA_KAFKA", "a:1,b:2,[::1]:3", "kafka", "a:1,b:2,[::1]:3"),
        ("MERCURIA_DATABASE", "postgres://u@h/d", "database", "postgres://u@h/d"),
        ("MERCURIA_DATABASE", "postgres://u@h/d", "database_owner", "postgres://u@h/d"),
        ("MERCURIA_DATABASE_OWNER", "postgres://o@h/d", "database_owner", "postgres://o@h/d"),
        ("MERCURIA_REDIS", "rediss://h:1/0", "redis", "rediss://h:1/0"),
        ("MERCURIA_PARTITIONS", "1", "partitions", 1),
        ("MERCURIA_PARTITIONS", "1024", "partitions", 1024),
        ("MERCURIA_REPLICATION", "16", "replication", 16),
        ("MERCURIA_STANDBYS", "0", "standbys", 0),
        ("MERCURIA_KAFKA_SESSION_MS", "3000", "kafka_session_ms", 3000),
        ("MERCURIA_KAFKA_SESSION_MS", "3000", "kafka_heartbeat_ms", 1000),
        ("MERCURIA_KAFKA_HEARTBEAT_MS", "3333", "kafka_heartbeat_ms", 3333),
        ("MERCURIA_WORKER", "Eu_west-2", "worker", "Eu_west-2"),
        ("MERCURIA_HTTP_PORT", "65535", "http_port", 65535),
        ("MERCURIA_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
        ("MERCURIA_MAX_CONNECTIONS", "1", "max_connections", 1),
        ("MERCURIA_MAX_IN_FLIGHT", "100000", "max_in_flight", 100_000),
        (
            "MERCURIA_CORS_ORIGINS",
            "https://a.example, http://localhost:3000",
            "cors_origins",
            ("https://a.example", "http://localhost:3000"),
        ),
        ("MERCURIA_TOKEN_KEYS_FILE", "/keys/token", "token_keys_file", Path("/keys/token")),
        ("MERCURIA_BCRYPT_COST", "4", "bcrypt_cost", 4),
        ("MERCURIA_LOGIN_LIMIT_ADDRESS", "1/second", "login_limit_address", Rate(1, 1)),
        ("MERCURIA_LOGIN_LIMIT_ACCOUNT", "1000000/day", "login_limit_account", Rate(1_000_000, 86_400)),
        (
            "MERCURIA_TRUSTED_PROXIES",
            "10.0.0.0/8, ::1",
            "trusted_proxies",
            (IPv4Network("10.0.0.0/8"), IPv6Network("::1/128")),
        ),
        (
            "MERCURIA_METRICS_NETWORKS",
            "10.0.0.0/8",
            "metrics_networks",
            (IPv4Network("10.0.0.0/8"),),
        ),
        (
            "MERCURIA_METRICS_NETWORKS",
            "",
            "metrics_networks",
            (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        ),
        ("MERCURIA_RECEIPTS_DAYS", "3650", "receipts_days", 3650),
        ("MERCURIA_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("MERCURIA_LOG_FORMAT", "json", "log_format", "json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "traces", True),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/v1/traces", "traces", True),
        ("OTEL_TRACES_EXPORTER", "otlp", "traces", True),
        ("OTEL_TRACES_EXPORTER", "none", "traces", False),
        ("OTEL_SDK_DISABLED", "true", "traces", False),
        ("MERCURIA_LEG_KEY_FILE", "/keys/leg", "leg_key_file", Path("/keys/leg")),
    ],
)
def test_what_can_be_used(tmp_path: Path, name: str, value: str, attribute: str, expected: object) -> None:
    assert getattr(settings(tmp_path, **{name: value}), attribute) == expected


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("MERCURIA_PARTITIONS", "0", "a whole number from 1 to 1024"),
        ("MERCURIA_PARTITIONS", "1025", "a whole number from 1 to 1024"),
        ("MERCURIA_PARTITIONS", "-1", "a whole number from 1 to 1024"),
        ("MERCURIA_PARTITIONS", "8.0", "a whole number from 1 to 1024"),
        ("MERCURIA_PARTITIONS", "٨", "a whole number from 1 to 1024"),
        ("MERCURIA_PARTITIONS", " 8", "a whole number from 1 to 1024"),
        ("MERCURIA_REPLICATION", "17", "a whole number from 1 to 16"),
        ("MERCURIA_KAFKA_SESSION_MS", "999", "a whole number from 1000 to 60000"),
        ("MERCURIA_KAFKA_HEARTBEAT_MS", "3334", "at most 3333, a third of MERCURIA_KAFKA_SESSION_MS"),
        ("MERCURIA_HTTP_PORT", "0", "a whole number from 1 to 65535"),
        ("MERCURIA_HTTP_PORT", "65536", "a whole number from 1 to 65535"),
        ("MERCURIA_WORKER_PORT", "http", "a whole number from 1 to 65535"),
        ("MERCURIA_RECEIPTS_DAYS", "0", "a whole number from 1 to 3650"),
        ("MERCURIA_WORKER", "../worker", "letters, digits, hyphens and underscores"),
        ("MERCURIA_WORKER", "-", "letters, digits, hyphens and underscores"),
        ("MERCURIA_KAFKA", "host", "host:port, or several separated by commas"),
        ("MERCURIA_KAFKA", ":9092", "host:port, or several separated by commas"),
        ("MERCURIA_KAFKA", "a:1,", "host:port, or several separated by commas"),
        ("MERCURIA_KAFKA", "a:99999", "host:port, or several separated by commas"),
        ("MERCURIA_BCRYPT_COST", "3", "a whole number from 4 to 16"),
        ("MERCURIA_BCRYPT_COST", "17", "a whole number from 4 to 16"),
        ("MERCURIA_ACCESS_TOKEN_MINUTES", "0", "a whole number from 1 to 1440"),
        ("MERCURIA_LOGIN_LIMIT_ADDRESS", "30", RATE),
        ("MERCURIA_LOGIN_LIMIT_ADDRESS", "0/minute", RATE),
        ("MERCURIA_LOGIN_LIMIT_ACCOUNT", "30/week", RATE),
        ("MERCURIA_REGISTER_LIMIT_ADDRESS", "-1/minute", RATE),
        ("MERCURIA_REGISTER_LIMIT_ACCOUNT", "٣/minute", RATE),
        ("MERCURIA_TRUSTED_PROXIES", "proxy", "networks as in 10.0.0.0/8, separated by commas"),
        ("MERCURIA_TRUSTED_PROXIES", "10.0.0.1/8", "networks as in 10.0.0.0/8, separated by commas"),
        ("MERCURIA_METRICS_NETWORKS", "inside", "networks as in 10.0.0.0/8, separated by commas"),
        ("MERCURIA_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("MERCURIA_LOG_FORMAT", "xml", "one of auto, json, console"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "one of otlp, none"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_it_may_be(
    tmp_path: Path, name: str, value: str, may_be: str
) -> None:
    with pytest.raises(SettingError) as error:
        settings(tmp_path, **{name: value})
    assert str(error.value) == f"{name}={value!r} cannot be used: it must be {may_be}."
    assert error.value.name == name


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("MERCURIA_DATABASE", "postgresql"),
        ("MERCURIA_DATABASE_OWNER", "postgresql"),
        ("MERCURIA_REDIS", "redis"),
    ],
)
@pytest.mark.parametrize("value", ["mysql://u:hunter2@h/d", "hunter2", "u:hunter2@h"])
def test_a_url_that_cannot_be_used_is_not_shown_with_its_password(
    tmp_path: Path, name: str, scheme: str, value: str
) -> None:
    with pytest.raises(SettingError) as error:
        settings(tmp_path, **{name: value})
    assert str(error.value).startswith(f"{name}=")
    assert str(error.value).endswith(f"it must be a URL that starts with {scheme}://.")
    assert "hunter2" not in str(error.value)


def test_the_leg_key_is_32_bytes(tmp_path: Path) -> None:
    (tmp_path / "leg.key").write_text("ab" * 32 + "\n")
    assert settings(tmp_path).leg_key() == b"\xab" * 32


@pytest.mark.parametrize("content", [None, b"", b"ab" * 31, b"ab" * 33, b"zz" * 32, b"\xff" * 64])
def test_a_leg_key_that_cannot_be_used_is_not_shown(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "leg.key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError) as error:
        settings(tmp_path).leg_key()
    assert str(error.value) == (
        f"MERCURIA_LEG_KEY_FILE={str(file)!r} cannot be used:"
        " it must be a file with 64 hexadecimal digits (`mercuria up` makes one)."
    )


def test_what_a_shell_quotes_is_read_as_the_shell_reads_it(tmp_path: Path) -> None:
    value = 'redis://:it\'s&a "secret"@h:1/0'
    (tmp_path / "stack.env").write_text(f"MERCURIA_REDIS={shlex.quote(value)}\n")
    assert read_stack_env(tmp_path) == {"MERCURIA_REDIS": value}


def test_where_there_is_no_stack_env_there_are_no_variables(tmp_path: Path) -> None:
    assert read_stack_env(tmp_path) == {}
    assert read_stack_env(tmp_path / "absent") == {}
    file = tmp_path / "file"
    file.touch(mode=stat.S_IRUSR)
    assert read_stack_env(file) == {}


@pytest.mark.parametrize("end", ["\r", "\n", "\x00", "\x1b", "\x85", "\u2028", "\udcff"])
def test_a_value_with_a_control_character_is_refused_and_not_shown(tmp_path: Path, end: str) -> None:
    # As an environment file with Windows' lines has it.
    for name in ("MERCURIA_DATABASE", "MERCURIA_REDIS", "MERCURIA_TOKEN_ISSUER", "MERCURIA_DATA_DIR"):
        with pytest.raises(
            SettingError, match=f"^{name}='…' cannot be used: it must be text in UTF-8 without control"
        ):
            Settings.from_env({"MERCURIA_DATA_DIR": str(tmp_path), name: f"postgresql://a:secret@b{end}"})


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "it is not text in UTF-8"),
        (lambda file: file.symlink_to(file), "Too many levels of symbolic links"),
    ],
)
def test_a_stack_env_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "stack.env")
    with pytest.raises(SettingError) as raised:
        settings(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'stack.env'} cannot be read: {why}; it must be as ")


def test_a_worker_has_a_name_that_a_directory_can_have() -> None:
    with pytest.raises(
        SettingError, match=r"^MERCURIA_WORKER='x{20}…' cannot be used: it must be 100 characters"
    ):
        Settings.from_env({"MERCURIA_WORKER": 101 * "x"})
