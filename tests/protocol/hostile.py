"""Hostile records: what a producer can put on the command topic, with good commands. A seed gives the same again.

Nothing in here knows a stack: property tests decide such records in memory, and the fuzz of a real stack sends them.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from mercuria.domain.commands import ClientCommand, Deposit, Transfer, Withdraw
from mercuria.kafka.partitioning import Partitioner

Header = tuple[str, bytes | None]

SOME_BYTES = (0, 1, 100, 5000)
"""How long what fills a key, a value or a header is, mostly."""


class Hostile(NamedTuple):
    """A record to send. `command` is what it holds where it is a good one, and is to be answered."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    command: ClientCommand | None = None


class Producer:
    """Makes records about some wallets, which are open and have money.

    Args:
        sizes: how large some of them are: each gives a key, a value or a header of so many bytes.
        large: how many in a hundred of them, about.
        raw_names: whether names of headers may be no UTF-8; bytes that are none are written as surrogates.
    """

    def __init__(
        self,
        random: Random,
        partitioner: Partitioner,
        wallets: Sequence[UUID],
        sizes: Sequence[int] = (),
        *,
        large: float = 1,
        raw_names: bool = False,
    ) -> None:
        self.seen: list[Hostile] = []
        """Records that stand on the topic, which may be copied, legs of Mercuria's own included."""
        self._random = random
        self._partitioner = partitioner
        self._wallets = wallets
        self._sizes = sizes
        self._large_weight = large
        self._raw_names = raw_names

    def record(self) -> Hostile:
        """Return the next record."""
        kinds: list[tuple[float, Callable[[], Hostile]]] = [
            (40, self._good),
            (30, self._spoiled),
            (10, self._strange),
            (10, self._forged_leg),
            (10, self._copied),
        ]
        if self._sizes:
            kinds.append((self._large_weight, self._large))
        weights, makes = zip(*kinds, strict=True)
        record = self._random.choices(makes, weights)[0]()
        if len(self.seen) < 1000 and len(record.value or b"") < 100_000:
            self.seen.append(record)
        return record

    def _good(self) -> Hostile:
        command = self._command()
        route = self._partitioner.of(command.wallet_id)
        partition = route.partition if self._random.random() < 0.9 else self._any_partition()
        return Hostile(partition, route.key, encoded(command), self._headers(), command)

    def _command(self) -> ClientCommand:
        random = self._random
        common: dict[str, Any] = {
            "id": UUID(int=random.getrandbits(128)),
            "wallet_id": random.choice(self._wallets),
            "amount": random.randint(1, 5),
            "reference": random.choice([None, "rent", "re: rent", '{"a":1}']),
            "metadata": {name: name * 3 for name in random.sample("abc:", random.randint(0, 3))},
        }
        kind = random.choice([Deposit, Withdraw, Transfer])
        if kind is Transfer:
            return Transfer(**common, to_wallet_id=random.choice(self._wallets))
        return kind(**common)

    def _spoiled(self) -> Hostile:
        """Return a good command of which one part is not."""
        record = self._good()._replace(command=None)
        part = self._random.choice(["key", "value", "value", "value"])
        if part == "key":
            return record._replace(key=self._key(record.key or b""))
        return record._replace(value=self._spoil(record.value or b""))

    def _key(self, key: bytes) -> bytes | None:
        return self._random.choice([None, b"", key.upper(), key + b"\x00", b" " + key, self._bytes()])

    def _spoil(self, value: bytes) -> bytes:
        random = self._random
        name, other = random.choice(["id", "amount", "wallet_id", "type"]), random.choice(ODD_VALUES)
        start = random.randint(0, len(value))
        cut = [
            value[:start],
            value[:start] + self._bytes() + value[start + random.randint(0, 9) :],
            value + value,
            b"\xef\xbb\xbf" + value,
            value.decode().encode("utf-16"),
            value.ljust(70_000),
            value[:-1] + f',"{name}":{other}}}'.encode(),
            value.replace(b"{", f'{{"{name}":{other},'.encode(), 1),
            value[:-1] + b',"metadata":{"a":"","\\u0061":""}}',
            value[:-1]
            + f',"{random.choice(["x", "", "actor_id", "actor_role", "reason"])}":{other}}}'.encode(),
        ]
        fields = json.loads(value)
        fields.pop(random.choice(sorted(fields)))
        return random.choice([*cut, json.dumps(fields).encode()])

    def _strange(self) -> Hostile:
        """Return a record that was never a command."""
        random = self._random
        odd = random.choice(ODD_VALUES).encode()
        value = random.choice([None, b"", odd, b"[" + odd + b"]", b'{"type":' + odd + b"}", self._bytes()])
        return Hostile(self._any_partition(), self._key(b"wallet"), value, self._headers())

    def _forged_leg(self) -> Hostile:
        random = self._random
        wallet_id = random.choice(self._wallets)
        leg: dict[str, Any] = {
            "type": random.choice(["credit", "refund", "forwarded"]),
            "origin": [random.choice([0, 1, -1, 2**63]), random.choice([0, 5, 2**62, -1])],
            "wallet_id": str(wallet_id),
            "command": {"type": "deposit"},
            "id": str(UUID(int=random.getrandbits(128))),
            "initiated": {"partition": 0, "offset": 0, "time_ms": 0},
            "amount": 100,
            "currency": "EUR",
            "sender": {"wallet_id": str(wallet_id)},
            "receiver": {"wallet_id": str(wallet_id)},
            "code": random.choice(["wallet_closed", "?"]),
            "reference": None,
            "metadata": {},
            "mac": random.choice(["0" * 32, "", None, "é" * 32]),
        }
        kept = LEG_FIELDS[leg["type"]] if random.random() < 0.8 else leg
        value = json.dumps({name: leg[name] for name in kept}).encode()
        route = self._partitioner.of(wallet_id)
        return Hostile(route.partition, route.key, value, self._headers())

    def _copied(self) -> Hostile:
        """Return a record that was seen before, with other headers, and often elsewhere or changed."""
        if not self.seen:
            return self._strange()
        record = self._random.choice(self.seen)._replace(command=None)
        if self._random.random() < 0.5:
            record = record._replace(headers=self._headers())
        if self._random.random() < 0.3:
            record = record._replace(partition=self._any_partition())
        if record.value and self._random.random() < 0.3:
            start = self._random.randrange(len(record.value))
            record = record._replace(value=record.value[:start] + b"0" + record.value[start + 1 :])
        return record

    def _large(self) -> Hostile:
        record = self._good()
        fill = self._fill(self._random.choice(self._sizes))
        part = self._random.choice(["key", "value", "header", "name"])
        if part == "key":
            return record._replace(key=fill, command=None)
        if part == "value":
            return record._replace(
                value=self._random.choice([fill, encoded({"a": 1})[:-1] + fill]), command=None
            )
        if part == "header":
            return record._replace(headers=[(self._name(), fill)])
        return record._replace(headers=[(fill.decode("ascii", "replace"), b"")])

    def _fill(self, size: int) -> bytes:
        """Return bytes of which some compress well, and some do not."""
        if self._random.random() < 0.7:
            return self._random.choice([b"\x00", b"x", b"[", b'"', b":"]) * size
        return self._random.randbytes(min(size, 1_500_000))

    def _headers(self) -> list[Header]:
        random = self._random
        if random.random() < 0.3:
            return []
        count = random.choice([1, 1, 2, 3, 3, 200])
        return [(self._name(), self._header_value()) for _ in range(count)]

    def _name(self) -> str:
        names = ["reply-to", "request-id", "traceparent", "tracestate", "Reply-To", "", "é", "x" * 300]
        if self._raw_names:
            names += ["\udce9tat", "reply-to\udcff"]
        return self._random.choice(names)

    def _header_value(self) -> bytes | None:
        random = self._random
        node = b"0123456789abcdef" * 2
        return random.choice(
            [
                None,
                self._bytes(),
                b"request-1",
                node + b":1",
                node + b":%d:" % random.randint(0, 99) + node,
                b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                b"a=b",
            ]
        )

    def _bytes(self) -> bytes:
        return self._random.randbytes(self._random.choice(SOME_BYTES))

    def _any_partition(self) -> int:
        return self._random.randrange(self._partitioner.partitions)


LEG_FIELDS = {
    "forwarded": ["type", "origin", "wallet_id", "command", "mac"],
    "credit": [
        *("type", "origin", "wallet_id", "id", "initiated", "amount", "currency", "sender"),
        *("reference", "metadata", "mac"),
    ],
    "refund": [
        *("type", "origin", "wallet_id", "id", "initiated", "amount", "currency", "receiver", "code"),
        *("reference", "metadata", "mac"),
    ],
}

ODD_VALUES = [
    "null", "true", "0", "-0", "1.0", "1e999", "NaN", "-Infinity", "9" * 30, "9" * 4299, "9" * 5000, str(2**63),
    '""', '"\\ud800"', '"\\u0000"', '"\x00"', '"' + "x" * 300 + '"', "[]", "{}", "[" * 40, "[" * 40 + "]" * 40,
    '{"a":1,"a":2}', '"deposit"', '"credit"', '"00000000-0000-0000-0000-000000000000"',
]  # fmt: skip


def encoded(content: Any) -> bytes:
    """Return JSON."""
    return msgspec.json.encode(content)
