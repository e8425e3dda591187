"""Problems: the error responses in the format of RFC 9457 (`application/problem+json`), and all error codes.

Rejections by wallets keep the codes of `domain.rejections`. This module defines the codes of errors of HTTP
itself.
"""

from typing import NamedTuple

import msgspec
from msgspec import Struct

from mercuria.domain.rejections import DETAILS, Code

CONTENT_TYPE = "application/problem+json"

MAX_ERRORS = 20
"""How many invalid fields a response lists. Its detail states how many more there are."""
MAX_DETAIL_CHARACTERS = 500
"""The maximum length of a sentence in a response: some sentences quote the client's input."""
MAX_FIELD_CHARACTERS = 100
"""The maximum length of a field name in a response."""


class Meaning(NamedTuple):
    """The meaning of a code: the status of the response, a constant title, and the usual detail."""

    status: int
    title: str
    detail: str


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def _meanings(codes: dict[str, tuple[int, str]]) -> dict[str, Meaning]:
    return {code: Meaning(status, _title(code), detail) for code, (status, detail) in codes.items()}


_OF_RECORDS = (
    Code.EMPTY_RECORD,
    Code.RECORD_TOO_LARGE,
    Code.MALFORMED_COMMAND,
    Code.UNKNOWN_COMMAND_TYPE,
    Code.MISSING_KEY,
    Code.KEY_MISMATCH,
    Code.LEG_NOT_AUTHENTIC,
    Code.UNREADABLE_RECORD,
)
"""Rejections of records on Kafka, which an HTTP request cannot cause."""

_STATUSES = {
    Code.MALFORMED_JSON: 400,
    Code.MISSING_FIELD: 400,
    Code.UNKNOWN_FIELD: 400,
    Code.INVALID_FIELD: 400,
    Code.OPERATOR_REQUIRED: 403,
    Code.NOT_WALLET_OWNER: 403,
    Code.WALLET_NOT_FOUND: 404,
}

REFUSALS: dict[str, Meaning] = {
    str(code): Meaning(_STATUSES.get(code, 422), _title(code), detail)
    for code, detail in DETAILS.items()
    if code not in _OF_RECORDS
}
"""The codes with which commands are rejected."""

OF_HTTP: dict[str, Meaning] = _meanings(
    {
        # Invalid requests.
        "bad_request": (400, "The request is not HTTP as it should be."),
        "malformed_body": (400, "The body must be a JSON object."),
        "invalid_header": (400, "A header has a value that it cannot have."),
        "invalid_cursor": (400, "The cursor was not returned by a page of this list."),
        # Authentication and authorization.
        "missing_token": (401, "This needs an access token: `Authorization: Bearer …`."),
        "invalid_token": (401, "The access token is not valid."),
        "token_expired": (401, "The access token has expired: refresh it."),
        "invalid_credentials": (401, "There is no account with this e-mail address and password."),
        "invalid_refresh_token": (401, "The refresh token is not valid: log in again."),
        "refresh_token_expired": (401, "The refresh token has expired: log in again."),
        "refresh_token_reused": (
            401,
            "The refresh token was used before, so its session has ended: log in again.",
        ),
        "not_yours": (403, "This belongs to another user."),
        "email_taken": (409, "There is an account with this e-mail address."),
        "invalid_email": (422, "The e-mail address is none that could exist."),
        "password_not_text": (422, "The password has control characters, or halves of characters."),
        "password_too_short": (422, "The password is too short."),
        "password_too_long": (422, "The password is too long."),
        "password_too_common": (422, "The password is too easy to guess."),
        # Resources.
        "not_found": (404, "There is nothing at this address."),
        "transaction_not_found": (404, "There is no such transaction."),
        "user_not_found": (404, "There is no such user."),
        "wallet_not_open_yet": (404, "The wallet was opened later than that."),
        "in_the_future": (422, "That moment has not come yet."),
        "invalid_period": (422, "The period ends before it begins: `from` must be earlier than `to`."),
        "statement_too_long": (
            422,
            "The statement would have too many lines: ask for less time, or for CSV.",
        ),
        "too_many_days": (422, "That is more than a year: ask for fewer days."),
        "method_not_allowed": (405, "This address does not take this method."),
        "request_timeout": (408, "The request took too long to arrive."),
        "expectation_failed": (417, "`Expect` may be `100-continue`, and nothing else."),
        "body_too_large": (413, "The body is larger than it may be."),
        "uri_too_long": (414, "The address is longer than it may be."),
        "unsupported_media_type": (415, "The body must be `application/json`."),
        "headers_too_large": (431, "The request's headers are larger than they may be."),
        # Temporary unavailability.
        "too_many_statements": (
            429,
            "Others of your statements are being made: wait for them, and ask again.",
        ),
        "too_many_requests": (429, "Too many requests: wait, and ask again."),
        "internal_error": (500, "Mercuria failed to handle the request, and has logged why."),
        "overloaded": (503, "There is more to do than can be done now: ask again."),
        "shutting_down": (503, "This worker is stopping: ask again, another one will answer."),
        "not_decided": (
            503,
            "Whether the command will be carried out is not known yet: ask again with the same Idempotency-Key.",
        ),
        "wallets_unavailable": (
            503,
            "The wallet's partition is not being worked on at the moment: ask again.",
        ),
        "database_unavailable": (503, "PostgreSQL cannot be reached at the moment: ask again."),
        "not_known_yet": (503, "What was decided last is still being written down: ask again."),
    }
)

MEANINGS: dict[str, Meaning] = REFUSALS | OF_HTTP
"""All codes that a response may have."""


class FieldError(Struct, frozen=True):
    """What is wrong with one field: its path in the body (`metadata.name`), query or header, a code, and a sentence."""

    field: str
    code: str
    detail: str


class ProblemDocument(Struct, frozen=True, omit_defaults=True):
    """The body of an error (RFC 9457). `code` is stable; `instance` is the request's id, which the log has as well."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    errors: list[FieldError] = []


class Problem(Struct, frozen=True):
    """A refusal, as a value. `detail` and `status` override those of the code's meaning if they are given."""

    code: str
    detail: str | None = None
    errors: list[FieldError] = []
    headers: dict[str, str] = {}
    status: int | None = None

    @property
    def http_status(self) -> int:
        """The status of the response."""
        return self.status or MEANINGS[self.code].status

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers of the response. A response that asks the client to retry states when."""
        if self.http_status in (429, 503) and "Retry-After" not in self.headers:
            return self.headers | {"Retry-After": "1"}
        return self.headers

    def document(self, request_id: str) -> bytes:
        """Return the body of the response. Its size is bounded, however many errors the request has."""
        meaning = MEANINGS[self.code]
        detail = _cut(self.detail or meaning.detail, MAX_DETAIL_CHARACTERS)
        if len(self.errors) > MAX_ERRORS:
            detail += (
                f" Only {MAX_ERRORS} errors are listed; there are {len(self.errors) - MAX_ERRORS:,} more."
            )
        return _encode(
            ProblemDocument(
                type=f"urn:mercuria:problem:{self.code}",
                title=meaning.title,
                status=self.http_status,
                detail=detail,
                code=self.code,
                instance=f"urn:mercuria:request:{request_id}",
                errors=[_cut_error(error) for error in self.errors[:MAX_ERRORS]],
            )
        )


def _cut_error(error: FieldError) -> FieldError:
    field, detail = _cut(error.field, MAX_FIELD_CHARACTERS), _cut(error.detail, MAX_DETAIL_CHARACTERS)
    return FieldError(field, error.code, detail)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


_encode = msgspec.json.Encoder().encode
