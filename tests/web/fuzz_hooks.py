"""What schemathesis cannot know from the OpenAPI document. It loads this file itself; see `tests/web/fuzz.py`."""

import re
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response

from mercuria.domain.money import is_currency

SHORT_KEY = re.compile("[!-~]{1,3}")


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Write integers as such, and let what the schema allows come to something more often.

    JSON Schema takes 5.0 for an integer. Mercuria takes no amount with a point, since others would come rounded.
    """
    if not isinstance(body, dict):
        return body
    if context.operation.path.endswith("/register") and _is_text(body, "email", "password"):
        # Few texts are e-mail addresses, and each can be registered once.
        password = f"{body['password'][:64]} {uuid4()}"
        return body | {"email": f"{uuid4()}@example.com", "password": password}
    changed = {name: int(value) if _is_whole(value) else value for name, value in body.items()}
    if _is_text(body, "currency") and is_currency(body["currency"]):
        changed["currency"] = "EUR"  # Money moves between wallets of one currency.
    return changed


@schemathesis.hook
def map_headers(_context: HookContext, headers: Any) -> Any:
    """Let most keys be new, and most callers wait: what is short, or an example, is generated again and again."""
    changed = dict(headers or {})
    key, nonce = changed.get("Idempotency-Key"), uuid4()
    if isinstance(key, str) and SHORT_KEY.fullmatch(key):
        changed["Idempotency-Key"] = f"{key}{nonce}"
    if changed.get("Prefer") == "respond-async" and nonce.int % 4:
        del changed["Prefer"]
    return changed


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, _case: Case, response: Response) -> bool:
    """Let a cursor be refused: no schema says which ones a list has given."""
    is_refused = type(failure).__name__ == "RejectedPositiveData"
    return not (is_refused and response.json()["code"] == "invalid_cursor")


def _is_text(body: dict[str, Any], *names: str) -> bool:
    values = [body.get(name) for name in names]
    return set(body) >= set(names) and all(isinstance(value, str) and len(value) <= 1024 for value in values)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()
