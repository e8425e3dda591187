"""The answers to the commands that open a load's wallets: which wallets cannot be loaded into, and why."""

import time
from collections import defaultdict
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.feed import Answer
from mercuria.cli.load.terms import Terms
from mercuria.cli.load.words import count
from mercuria.config import current_settings
from mercuria.domain.events import TYPES, WalletCreated
from mercuria.domain.printable import printable
from mercuria.domain.rejections import DETAILS, Code
from mercuria.kafka.client import event_reader

RECEIPTS_MARGIN_MS = 60 * 60 * 1000
"""A wallet whose receipts may expire within this time is not loaded into: the load itself takes time."""
MS_PER_DAY = 24 * 60 * 60 * 1000


class Openings:
    """The answers to the commands that open wallets.

    `on_other_terms` are the accounts whose wallets an earlier load has opened with another overdraft limit.
    """

    def __init__(self) -> None:
        self.on_other_terms: list[str] = []
        self._refused: defaultdict[Code, list[str]] = defaultdict(list)
        self._remembered_since_ms = int(time.time() * 1000) - current_settings().receipts_days * MS_PER_DAY

    def hear(self, account: str, answer: Answer) -> None:
        """Process the answer for one account."""
        if answer.decision.code is Code.COMMAND_ID_REUSED:
            self.on_other_terms.append(account)
        elif answer.decision.code is not None:
            self._refused[answer.decision.code].append(account)
        elif answer.time_ms < self._remembered_since_ms + RECEIPTS_MARGIN_MS:
            # The receipts of the operations that followed may expire before this load reaches them.
            self._refused[Code.WALLET_ALREADY_EXISTS].append(account)

    async def check_ages(self, terms: Terms) -> None:
        """Find wallets on other terms whose receipts are about to expire: the answers do not show it."""
        if not self.on_other_terms:
            return
        accounts = {terms.wallet_id(account): account for account in self.on_other_terms}
        since_ms = self._remembered_since_ms
        async with event_reader(current_settings().kafka) as reader:
            old = await opened_between(
                reader, set(accounts), since_ms - RECEIPTS_MARGIN_MS, since_ms + RECEIPTS_MARGIN_MS
            )
        self._refused[Code.WALLET_ALREADY_EXISTS] += [accounts[wallet_id] for wallet_id in old]

    def require_all(self, terms: Terms) -> None:
        """Check that every account has its wallet, and that its operations still have receipts.

        Raises:
            LoadError: some do not; the message gives the most frequent reason.
        """
        code, accounts = max(self._refused.items(), key=lambda each: len(each[1]), default=(None, []))
        if code is None or not accounts:
            return
        wallet_id = terms.wallet_id(accounts[0])
        reason = f"it could not be opened. {DETAILS[code]}"
        if code is Code.WALLET_ALREADY_EXISTS:
            days = current_settings().receipts_days
            reason = (
                f"it was opened {days} days ago or earlier, or by another client. Which operations"
                " it has had is no longer remembered, and some could count twice."
            )
        which = f"{'such as ' * (len(accounts) > 1)}{wallet_id} of account {printable(accounts[0])}"
        raise LoadError(
            f"no operation was sent, because of {count(len(accounts), 'wallet')}, {which}: {reason}"
        )


class _Subject(msgspec.Struct):
    wallet_id: UUID | None = None


class _Envelope(msgspec.Struct):
    type: str
    data: _Subject


_decode = msgspec.json.Decoder(_Envelope).decode


async def opened_between(
    reader: AIOKafkaConsumer, wallet_ids: set[UUID], since_ms: int, until_ms: int
) -> set[UUID]:
    """Return those of some wallets that were opened in a period, by their commands' Kafka timestamps."""
    found: set[UUID] = set()
    starts = await reader.offsets_for_times(dict.fromkeys(reader.assignment(), since_ms))
    ends = await reader.end_offsets(reader.assignment())
    unread: set[TopicPartition] = {tp for tp, start in starts.items() if start is not None}
    for tp in unread:
        reader.seek(tp, starts[tp].offset)
    while unread:
        for tp, records in (await reader.getmany(*unread, timeout_ms=200)).items():
            for record in records:
                # Repeated events have their first timestamp. All older events precede the first younger one.
                if record.timestamp > until_ms or record.offset >= ends[tp]:
                    unread.discard(tp)
                    break
                event = _decode(record.value)
                if event.type == TYPES[WalletCreated] and event.data.wallet_id in wallet_ids:
                    found.add(event.data.wallet_id)
        unread = {tp for tp in unread if await reader.position(tp) < ends[tp]}
    return found
