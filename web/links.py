"""The examples of the OpenAPI document, and the links from an answer to the requests that can follow it.

Endpoint declarations do not contain these. A test checks that everything named here exists, and that the
examples match their types.
"""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_WALLET = "5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a11"
_OTHER_WALLET = "8c1b7e0e-6a4e-4f0b-8a53-0d5b7c1f2e22"
_OWNER = "5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a12"
_TIME = "2026-11-24T23:11:44.028Z"

EXAMPLES: Mapping[str, Json] = {
    "Credentials": {"email": "zoe@example.com", "password": "seven otters juggle"},
    "NewWallet": {"currency": "EUR", "metadata": {"label": "Household"}},
    "Movement": {"amount": 1050, "reference": "Pocket money"},
    "Limits": {"overdraft_limit": 50000, "reason": "A good customer."},
    "Reason": {"reason": "Its owner has asked for it."},
    "NewTransfer": {
        "from_wallet_id": _WALLET,
        "to_wallet_id": _OTHER_WALLET,
        "amount": 1050,
        "reference": "Rent, November",
    },
    "WalletBody": {
        "id": _WALLET,
        "owner_id": _OWNER,
        "currency": "EUR",
        "balance": 1050,
        "overdraft_limit": 0,
        "status": "open",
        "version": 2,
        "metadata": {"label": "Household"},
        "created_at": _TIME,
        "updated_at": _TIME,
    },
    "TransactionEntries": {
        "transaction_id": "0b2f7a3c-5d0e-5c0e-9a53-6f6a1d2b3c44",
        "entries": [
            {
                "id": "3f1c1b62-6f0e-8d4a-9b0e-4d8f4f0f7c10",
                "transaction_id": "0b2f7a3c-5d0e-5c0e-9a53-6f6a1d2b3c44",
                "account": _WALLET,
                "direction": "debit",
                "amount": 1050,
                "currency": "EUR",
                "balance_after": 0,
                "wallet_version": 3,
                "occurred_at": _TIME,
                "hash": "3f1c1b626f0efd4a5b0e4d8f4f0f7c10c4a0ab4c3a2b6a0c2c4d0a0f1e5c7b21",
                "effective_at": None,
            },
            {
                "id": None,
                "transaction_id": "0b2f7a3c-5d0e-5c0e-9a53-6f6a1d2b3c44",
                "account": _OTHER_WALLET,
                "direction": "credit",
                "amount": 1050,
                "currency": "EUR",
                "balance_after": None,
                "wallet_version": None,
                "occurred_at": _TIME,
                "hash": None,
                "effective_at": None,
            },
        ],
    },
    "StatementBody": {
        "wallet_id": _WALLET,
        "currency": "EUR",
        "from": "2026-11-01T00:00:00.000Z",
        "to": "2026-12-01T00:00:00.000Z",
        "opening_balance": 1050,
        "closing_balance": 0,
        "lines": [
            {
                "occurred_at": _TIME,
                "kind": "transfer",
                "transaction_id": "0b2f7a3c-5d0e-5c0e-9a53-6f6a1d2b3c44",
                "counterparty_id": _OTHER_WALLET,
                "amount": -1050,
                "balance_after": 0,
                "reference": "Rent, November",
                "effective_at": None,
            }
        ],
    },
    "TransactionBody": {
        "id": "0b2f7a3c-5d0e-5c0e-9a53-6f6a1d2b3c44",
        "kind": "transfer",
        "status": "completed",
        "from_wallet_id": _WALLET,
        "to_wallet_id": _OTHER_WALLET,
        "amount": 1050,
        "currency": "EUR",
        "reference": "Rent, November",
        "metadata": {},
        "failure": None,
        "created_at": _TIME,
        "completed_at": _TIME,
        "effective_at": None,
    },
}
"""By the name of a type: an example value."""

LOWEST: Mapping[str, int] = {"amount": 1, "overdraft_limit": 0}
"""By the name of a request's field: the lowest value that wallets accept.

The types accept lower values, because the refusal of a wallet is more specific.
"""

STATUSES: Mapping[tuple[str, str], int] = {("transfer", "wallet_not_found"): 422}
"""By the names of an endpoint and a code: the status, if it differs from the code's own."""


def _link(operation: str, *, body: Json | None = None, **parameters: str) -> Json:
    link: Json = {"operationId": operation}
    if parameters:
        link["parameters"] = parameters
    if body is not None:
        link["requestBody"] = body
    return link


_SESSION = {
    "refresh": _link("refresh", body={"refresh_token": "$response.body#/refresh_token"}),
    "logout": _link("logout", body={"refresh_token": "$response.body#/refresh_token"}),
}
_CREDENTIALS = {"email": "$request.body#/email", "password": "$request.body#/password"}
_OF_WALLETS = (
    "get_wallet",
    "deposit",
    "withdraw",
    "set_limits",
    "freeze_wallet",
    "unfreeze_wallet",
    "close_wallet",
    "list_wallet_events",
    "get_statement",
)
_WALLET_LINKS = {name: _link(name, wallet_id="$response.body#/id") for name in _OF_WALLETS}
_MOVED = {
    "wallet": _link("get_wallet", wallet_id="$request.path.wallet_id"),
    "transaction": _link("get_transaction", transaction_id="$response.body#/id"),
    "entries": _link("get_entries", transaction_id="$response.body#/id"),
}
_TRANSFERRED = {
    "transaction": _link("get_transaction", transaction_id="$response.body#/id"),
    "entries": _link("get_entries", transaction_id="$response.body#/id"),
    "source": _link("get_wallet", wallet_id="$response.body#/from_wallet_id"),
    "target": _link("get_wallet", wallet_id="$response.body#/to_wallet_id"),
}
_BETWEEN_TWO = {
    "from_wallet_id": "$response.body#/data/0/id",
    "to_wallet_id": "$response.body#/data/1/id",
    "amount": 1,
}

LINKS: Mapping[str, Mapping[int, Mapping[str, Json]]] = {
    "register": {201: _SESSION | {"login": _link("login", body=_CREDENTIALS)}},
    "login": {200: _SESSION},
    "refresh": {200: _SESSION},
    "me": {
        200: {
            "wallets": _link("list_wallets"),
            "new_wallet": _link("open_wallet", body={"currency": "EUR"}),
        }
    },
    "open_wallet": {201: _WALLET_LINKS},
    "list_wallets": {
        200: {
            "next_page": _link("list_wallets", cursor="$response.body#/next_cursor"),
            "newest": _link("get_wallet", wallet_id="$response.body#/data/0/id"),
            "statement_of_the_newest": _link("get_statement", wallet_id="$response.body#/data/0/id"),
            "entries_of_the_newest": _link("list_entries", wallet_id="$response.body#/data/0/id"),
            "fill_the_newest": _link("deposit", wallet_id="$response.body#/data/0/id"),
            "between_the_two_newest": _link("transfer", body=_BETWEEN_TWO),
        }
    },
    "deposit": {201: _MOVED, 202: _MOVED},
    "withdraw": {201: _MOVED, 202: _MOVED},
    "transfer": {201: _TRANSFERRED, 202: _TRANSFERRED},
    "list_transactions": {
        200: {
            "next_page": _link("list_transactions", cursor="$response.body#/next_cursor"),
            "newest": _link("get_transaction", transaction_id="$response.body#/data/0/id"),
        }
    },
    "list_entries": {
        200: {
            "next_page": _link("list_entries", cursor="$response.body#/next_cursor"),
            "both_sides": _link("get_entries", transaction_id="$response.body#/data/0/transaction_id"),
        }
    },
    "list_wallet_events": {
        200: {
            "next_page": _link(
                "list_wallet_events",
                wallet_id="$request.path.wallet_id",
                cursor="$response.body#/next_cursor",
            )
        }
    },
}
"""By the name of an endpoint and the status of its answer: the next requests, with the values they take."""
