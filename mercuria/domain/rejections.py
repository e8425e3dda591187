"""Refusals: every reason why a command has no effect, as a stable code with a sentence that explains it."""

from enum import StrEnum


class Code(StrEnum):
    """Why a command was refused. The codes are part of the API; new ones go to the end (receipts keep the number)."""

    # The record cannot be read.
    EMPTY_RECORD = "empty_record"
    RECORD_TOO_LARGE = "record_too_large"
    MALFORMED_JSON = "malformed_json"
    MALFORMED_COMMAND = "malformed_command"
    UNKNOWN_COMMAND_TYPE = "unknown_command_type"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    INVALID_FIELD = "invalid_field"
    MISSING_KEY = "missing_key"
    KEY_MISMATCH = "key_mismatch"
    LEG_NOT_AUTHENTIC = "leg_not_authentic"
    # The content of the command, whatever the wallet.
    AMOUNT_MUST_BE_POSITIVE = "amount_must_be_positive"
    AMOUNT_TOO_LARGE = "amount_too_large"
    UNKNOWN_CURRENCY = "unknown_currency"
    SOURCE_AND_TARGET_MUST_DIFFER = "source_and_target_must_differ"
    OVERDRAFT_LIMIT_OUT_OF_RANGE = "overdraft_limit_out_of_range"
    OPERATOR_REQUIRED = "operator_required"
    COMMAND_ID_REUSED = "command_id_reused"
    # The state of the wallet.
    WALLET_NOT_FOUND = "wallet_not_found"
    WALLET_ALREADY_EXISTS = "wallet_already_exists"
    NOT_WALLET_OWNER = "not_wallet_owner"
    WALLET_CLOSED = "wallet_closed"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_NOT_FROZEN = "wallet_not_frozen"
    WALLET_NOT_EMPTY = "wallet_not_empty"
    CURRENCY_MISMATCH = "currency_mismatch"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_WOULD_OVERFLOW = "balance_would_overflow"
    # Codes that were added later, in the order of their addition.
    UNREADABLE_RECORD = "unreadable_record"
    SKIPPED = "skipped"


DETAILS: dict[Code, str] = {
    Code.EMPTY_RECORD: "The record has no value.",
    Code.RECORD_TOO_LARGE: "The record is larger than a command may be.",
    Code.MALFORMED_JSON: "The value is not JSON.",
    Code.MALFORMED_COMMAND: "The value is not a JSON object.",
    Code.UNKNOWN_COMMAND_TYPE: "There is no command of this type.",
    Code.MISSING_FIELD: "A field is missing.",
    Code.UNKNOWN_FIELD: "There is a field that this command does not have.",
    Code.INVALID_FIELD: "A field has a value that it cannot have.",
    Code.MISSING_KEY: "The record has no key; it must be the wallet's id as text.",
    Code.KEY_MISMATCH: "The record's key is not the wallet's id as text.",
    Code.LEG_NOT_AUTHENTIC: "Only Mercuria itself sends the legs of a transfer.",
    Code.AMOUNT_MUST_BE_POSITIVE: "The amount must be at least one minor unit.",
    Code.AMOUNT_TOO_LARGE: "The amount must be within signed 64 bits.",
    Code.UNKNOWN_CURRENCY: "The currency must be an ISO 4217 code in capital letters that has a minor unit.",
    Code.SOURCE_AND_TARGET_MUST_DIFFER: "A transfer needs two wallets.",
    Code.OVERDRAFT_LIMIT_OUT_OF_RANGE: "The overdraft limit must be within signed 64 bits and not negative.",
    Code.OPERATOR_REQUIRED: "Only an operator may do this.",
    Code.COMMAND_ID_REUSED: "A command with this id and another content was decided before.",
    Code.WALLET_NOT_FOUND: "There is no such wallet.",
    Code.WALLET_ALREADY_EXISTS: "A wallet with this id exists.",
    Code.NOT_WALLET_OWNER: "The wallet belongs to somebody else.",
    Code.WALLET_CLOSED: "The wallet is closed.",
    Code.WALLET_FROZEN: "The wallet is frozen.",
    Code.WALLET_NOT_FROZEN: "The wallet is not frozen.",
    Code.WALLET_NOT_EMPTY: "A wallet can be closed at balance 0 only.",
    Code.CURRENCY_MISMATCH: "The wallet is in another currency.",
    Code.INSUFFICIENT_FUNDS: "The balance and the overdraft limit do not cover the amount.",
    Code.BALANCE_WOULD_OVERFLOW: "The balance, with what may still come back from transfers, would exceed 64 bits.",
    Code.UNREADABLE_RECORD: "The record cannot be read.",
    Code.SKIPPED: "An operator has had the record skipped, which could not be decided.",
}

NUMBERS: dict[Code, int] = {code: number for number, code in enumerate(Code, start=1)}
"""The number that a receipt keeps for each code; 0 stands for an accepted command."""

CODES: dict[int, Code] = {number: code for code, number in NUMBERS.items()}
