"""Regenerates `kafka.lock`: `python -m mercuria.embedded.kafka_lock`, after a change of `jars.KAFKA_VERSION`.

The module resolves Kafka's dependencies with jgo, downloads them, and writes the lock file. Review the
difference before you commit it: every installation then runs these jars.
"""

import hashlib
import tempfile
from pathlib import Path

from jgo.maven import Dependency, MavenContext, PythonResolver

from mercuria.embedded.files import write_atomically
from mercuria.embedded.jars import KAFKA_VERSION, LOCK

KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"

HEADER = f"""\
# The jars of {KAFKA}, resolved; made by `python -m mercuria.embedded.kafka_lock`.
# group:artifact:version size sha256
"""


def main() -> None:
    """Resolve and download the jars, and write the lock file."""
    with tempfile.TemporaryDirectory() as cache:
        maven = MavenContext(resolver=PythonResolver(), repo_cache=Path(cache))
        kafka, libraries = maven.resolver.resolve([maven.create_dependency(KAFKA)])
        jars = [*kafka, *libraries, _log_binding(maven, libraries)]
        lines = sorted(_line(jar) for jar in jars)
    write_atomically(LOCK, HEADER + "".join(lines), 0o644)
    print(f"{LOCK}: {len(lines)} jars")


def _log_binding(maven: MavenContext, libraries: list[Dependency]) -> Dependency:
    """Return the library that connects Kafka's log to log4j; Kafka's own POM does not name it."""
    log4j = next(library for library in libraries if library.artifactId == "log4j-core")
    return maven.create_dependency(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j.version}")


def _line(jar: Dependency) -> str:
    content = Path(jar.artifact.resolve()).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{jar.groupId}:{jar.artifactId}:{jar.version} {len(content)} {digest}\n"


if __name__ == "__main__":
    main()
