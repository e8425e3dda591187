"""Bootstrap for the first worker: creates topics, the database's schema, and keys for access tokens."""

import time
from collections.abc import Mapping

from mercuria.auth.token_keys import JwkSet, KeyFile, new_key
from mercuria.config import Settings, shed_foreign_variables
from mercuria.embedded.files import PRIVATE, write_atomically
from mercuria.kafka import topic_setup as declare
from mercuria.postgres.migrate import migrate


def prepare(env: Mapping[str, str]) -> None:
    """Prepare the stack to which `env` leads; existing objects stay unchanged.

    Raises:
        TopicError: see `declare_topics`.
        MigrationError: see `migrate`.
        SettingError: the file that MERCURIA_TOKEN_KEYS_FILE names has no keys.
    """
    declare.prepare(env)
    settings = Settings.from_env(env)
    shed_foreign_variables(settings)
    migrate(settings.database_owner)
    _ensure_token_keys(settings)


def _ensure_token_keys(settings: Settings) -> None:
    """Create the keys once; if a setting names another file, the keys must exist there."""
    path = settings.token_keys_file
    if path.parent == settings.data_dir and not path.exists():
        write_atomically(path, JwkSet((new_key(int(time.time())),)).as_text(), PRIVATE)
    KeyFile(path).look()
