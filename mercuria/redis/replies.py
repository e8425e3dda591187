"""Replies: deliver the decision of a wallet to the node that has sent the command, whichever worker decided.

The command's record carries a header `reply-to`, which names the node and the waiting request. The legs that
follow from the command carry the header on. The worker that decides the last leg publishes a `Reply` on the
node's channel in Redis; if that worker is the node itself, the reply does not leave the process. A reply may
be lost: the log is the source of truth.

    reply-to    <node, 32 hexadecimal digits>:<number of the request>:<signature, 32 hexadecimal digits>

The signature binds the address to the exact value of the record, by the installation's key. So a producer
cannot direct the outcome of its own command to a request of another client: a header without a valid
signature counts as absent, and so does a repeated header. A copy of a whole record is the same command, which
is decided once.
"""

import asyncio
import re
from collections.abc import Sequence
from hmac import compare_digest
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
from mode import Service
from msgspec import Struct

from mercuria.domain.commands import Credit, Decidable
from mercuria.domain.events import BalanceUpdated, CommandRejected, Event
from mercuria.domain.parsing import MAX_LEG_BYTES
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction, transaction_of
from mercuria.domain.wallet import Wallet
from mercuria.kafka.sealing import Seal
from mercuria.redis.client import UNAVAILABLE, connect

REPLY_TO = "reply-to"
CHANNEL = "mercuria:replies:{}"
RECONNECT_S = 0.2
LISTEN_S = 5.0

# Workers before signatures wrote `<node>:<number>`. That counts as absent, as a signed address does for them: if a
# worker of the other version decides its command, a request finds the outcome in the log, as after a lost reply.
# Trusting the old form until all workers are new would let every producer use it for good.
_match = re.compile(rb"([0-9a-f]{32}:(?:0|[1-9][0-9]{0,18})):([0-9a-f]{32})").fullmatch


class Reply(Struct, frozen=True, array_like=True):
    """The outcome of a command.

    `number` identifies the waiting request. A refusal has a code and a detail. Any other outcome has the
    wallet that decided, as it was right afterwards, and the transaction if money was moved. `is_replayed`
    means that the command was decided before, and that this is its first answer again; for a transfer, that
    is the answer of its sender, whatever followed. `command_id` is the id of the command. The struct is
    encoded as an array: new fields go to the end, with a default.
    """

    number: int
    is_replayed: bool = False
    code: Code | None = None
    detail: str | None = None
    wallet: Wallet | None = None
    transaction: Transaction | None = None
    command_id: UUID | None = None

    @property
    def is_beginning(self) -> bool:
        """Whether this is the beginning of a transfer, whose outcome is still open."""
        return self.transaction is not None and self.transaction.status == "pending"


class Address(NamedTuple):
    """The address of a reply: a node, and the number of a request there."""

    node: str
    number: int

    def header(self, value: bytes, seal: Seal) -> tuple[str, bytes]:
        """Return the signed header for a record with this value."""
        address = f"{self.node}:{self.number}".encode()
        return REPLY_TO, b"%b:%b" % (address, seal.sign_reply(address, value))


def address_in(
    headers: Sequence[tuple[str, bytes | None]], value: bytes | None, seal: Seal
) -> Address | None:
    """Return the address in a record's headers; None if they have none with a valid signature for `value`."""
    said = [each for name, each in headers if name == REPLY_TO]
    # No request sends a larger value, and hashing that of a hostile producer may take long.
    if not said or len(said) > 1 or said[0] is None or value is None or len(value) > MAX_LEG_BYTES:
        return None
    match = _match(said[0])
    if match is None or not compare_digest(match[2], seal.sign_reply(match[1], value)):
        return None
    node, _, number = match[1].decode().partition(":")
    return Address(node, int(number))


class Waiting(NamedTuple):
    """A waiting request: the address of its reply, the command that it sends, and the future reply."""

    address: Address
    command_id: UUID
    reply: asyncio.Future[Reply]


class Replies(Service):
    """The waiting requests of this node, and the listener for their replies."""

    def __init__(self, redis_url: str, **options: Any) -> None:
        super().__init__(**options)
        self.node = uuid4().hex
        self.heard_since_s: float | None = None
        """Since when no published reply can have been missed, by the loop's clock; None while offline."""
        self._redis_url = redis_url
        self._numbers = count()
        self._waiting: dict[int, Waiting] = {}

    def expect(self, command_id: UUID) -> Waiting:
        """Begin to wait for the reply to a command; `give_up` ends the wait."""
        address = Address(self.node, next(self._numbers))
        waiting = Waiting(address, command_id, asyncio.get_running_loop().create_future())
        self._waiting[address.number] = waiting
        return waiting

    def give_up(self, waiting: Waiting) -> None:
        """End the wait, whether a reply has arrived or not."""
        self._waiting.pop(waiting.address.number, None)

    def resolve(self, replies: Sequence[Reply]) -> None:
        """Deliver replies to the requests that still wait for them.

        A reply to another command than that of the request is dropped, whatever its number.
        """
        for each in replies:
            waiting = self._waiting.get(each.number)
            if waiting is None or waiting.reply.done():
                continue
            if each.command_id == waiting.command_id:
                waiting.reply.set_result(each)
            else:
                self.log.warning("A reply has the number of a request that waits for another command.")

    @Service.task
    async def _listen(self) -> None:
        while not self.should_stop:
            try:
                await self._listen_while_connected()
            except UNAVAILABLE:
                self.heard_since_s = None
                await self.sleep(RECONNECT_S)

    async def _listen_while_connected(self) -> None:
        client = connect(self._redis_url, timeout_s=None)
        try:
            async with client.pubsub() as channel:
                await channel.subscribe(CHANNEL.format(self.node))
                while not self.should_stop:
                    message = await channel.get_message(timeout=LISTEN_S)
                    if message is None:
                        # Redis may be gone without closing the connection.
                        async with asyncio.timeout(LISTEN_S):
                            await channel.ping()
                    elif message["type"] == "subscribe":
                        self.heard_since_s = asyncio.get_running_loop().time()
                    elif message["type"] == "message":
                        self._hear(message["data"])
        finally:
            self.heard_since_s = None
            await client.aclose()

    def _hear(self, message: bytes) -> None:
        try:
            self.resolve(_decode(message))
        except msgspec.DecodeError:
            # Another client sent it, or a node of another version. The waiting request finds the outcome in the log.
            self.log.warning("A message on the channel of replies cannot be read.", exc_info=True)


def is_final(command: Decidable, event: Event) -> bool:
    """Return whether `event` is the final answer to the request behind `command`: no later leg answers it."""
    if type(event) is BalanceUpdated:
        return event.transaction_status != "pending"
    return type(command) is not Credit


def reply_of(
    event: Event, wallet: Wallet | None, time_ms: int, number: int, *, is_replayed: bool = False
) -> Reply:
    """Return the reply to request `number`: `event`, its time `time_ms`, and the resulting `wallet`."""
    if type(event) is CommandRejected:
        return Reply(number, is_replayed, event.code, event.detail, command_id=event.command_id)
    if type(event) is BalanceUpdated:
        transaction = transaction_of(event, time_ms)
        return Reply(number, is_replayed, None, None, wallet, transaction, transaction.id)
    return Reply(number, is_replayed, None, None, wallet, None, event.command_id)  # type: ignore[union-attr]


def encode_replies(replies: Sequence[Reply]) -> bytes:
    """Encode replies to one node as one message."""
    return _encode(replies)


_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode = msgspec.msgpack.Decoder(list[Reply]).decode
