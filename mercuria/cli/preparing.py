"""What has to be there before the first worker starts: topics, the database's schema, and keys for access tokens."""

import time
from collections.abc import Mapping

from mercuria.auth.token_keys import JwkSet, KeyFile, new_key
from mercuria.config import Settings, shed_foreign_variables
from mercuria.embedded.files import PRIVATE, write_atomically
from mercuria.kafka import topic_setup as declare
from mercuria.postgres.migrate import migrate


def prepare(env: Mapping[str, str]) -> None:
    """Prepare the stack that `env` leads to; what is there already stays as it is.

    Raises:
        TopicError: see `declare_topics`.
        MigrationError: see `migrate`.
        SettingError: there are no keys where MERCURIA_TOKEN_KEYS_FILE says.
    """
    declare.prepare(env)
    settings = Settings.from_env(env)
    shed_foreign_variables(settings)
    migrate(settings.database_owner)
    _ensure_token_keys(settings)


def _ensure_token_keys(settings: Settings) -> None:
    """Make the keys once; where a setting says that they are elsewhere, they have to be there."""
    path = settings.token_keys_file
    if path.parent == settings.data_dir and not path.exists():
        write_atomically(path, JwkSet((new_key(int(time.time())),)).as_text(), PRIVATE)
    KeyFile(path).look()
