"""What has to be there before the first worker starts: topics, and the database's schema."""

from collections.abc import Mapping

from mercuria.adapters.migrate import migrate
from mercuria.config import Settings
from mercuria.streams import declare


def prepare(env: Mapping[str, str]) -> None:
    """Prepare the stack that `env` (MERCURIA_* variables) leads to; what is there already stays as it is.

    Raises:
        TopicError: see `declare_topics`.
        MigrationError: see `migrate`.
    """
    declare.prepare(env)
    migrate(Settings.from_env(env).database)
