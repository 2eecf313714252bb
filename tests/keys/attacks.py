"""Attacks on a stored ring, by name: each returns the document that is put in its place."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

from tests.keys.attacker import FORGERIES, HEADER, KNOWN, Attack, Attacker, Fields, place, text

ATTACKS: dict[str, Attack] = {}
"""None needs the authentication key, and none may ever be accepted."""

CHOSEN_KEYS: dict[str, Callable[[Attacker], bytes]] = {
    "a version appended": lambda attacker: attacker.appended(),
    "a version appended that is not primary": lambda attacker: attacker.appended(primary=False),
    "the primary replaced": lambda attacker: attacker.replaced(),
    "a whole new ring": lambda attacker: attacker.renewed(),
}
"""Payloads in which all is right, and a tenant key that the attacker knows."""


def _forged(payload: Callable[[Attacker], bytes], name: str, attacker: Attacker) -> bytes:
    return FORGERIES[name](attacker, payload(attacker))


for _what, _payload in CHOSEN_KEYS.items():
    for _name in FORGERIES:
        ATTACKS[f"{_what}, under {_name}"] = partial(_forged, _payload, _name)


# --- edits of the fields, under the header as it is -------------------------------------------


def _edited(edit: Callable[[Attacker, Fields], object], attacker: Attacker) -> bytes:
    fields = attacker.fields()
    edit(attacker, fields)
    return attacker.current[:HEADER] + text(fields)


def _put(**changes: object) -> Callable[[Attacker, Fields], object]:
    return lambda _, fields: fields.update(changes)


def _put_in(number: int, **changes: object) -> Callable[[Attacker, Fields], object]:
    return lambda _, fields: fields["versions"][number - 1].update(changes)


def _swap_wraps(attacker: Attacker, fields: Fields) -> None:
    one, _, three = fields["versions"]
    one["wraps"], three["wraps"] = three["wraps"], one["wraps"]


def _move_wrap(attacker: Attacker, fields: Fields) -> None:
    one, _, three = fields["versions"]
    three["wraps"][0] = one["wraps"][0]


def _split(attacker: Attacker, fields: Fields) -> None:
    fields["versions"][2]["wraps"][1] = attacker.wrap(KNOWN, place(fields, 3), "spare:m2")


def _foreign_kek(attacker: Attacker, fields: Fields) -> None:
    wrap = {**fields["versions"][2]["wraps"][0], "kek": "evil:kek"}
    fields["versions"][2]["wraps"].insert(0, wrap)


def _many_wraps(count: int) -> Callable[[Attacker, Fields], object]:
    def edit(attacker: Attacker, fields: Fields) -> None:
        wrap = fields["versions"][2]["wraps"][0]
        fields["versions"][2]["wraps"] += [
            {**wrap, "kek": f"local:k{number}"} for number in range(count - 2)
        ]

    return edit


def _rename_kek(attacker: Attacker, fields: Fields) -> None:
    first, second = fields["versions"][2]["wraps"]
    first["kek"], second["kek"] = second["kek"], first["kek"]


def _turn_bit(attacker: Attacker, fields: Fields) -> None:
    raw = bytearray(base64.b64decode(fields["versions"][2]["check"]))
    raw[0] ^= 1
    fields["versions"][2]["check"] = base64.b64encode(raw).decode()


def _reorder(attacker: Attacker, fields: Fields) -> None:
    for name in reversed(list(fields)):
        fields[name] = fields.pop(name)


def _drop_version(attacker: Attacker, fields: Fields) -> None:
    del fields["versions"][0]


EDITS: dict[str, Callable[[Attacker, Fields], object]] = {
    "another primary": _put(primary=1),
    "no primary": _put(primary=None),
    "a disabled version enabled": _put_in(2, state="enabled"),
    "an enabled version disabled": _put_in(1, state="disabled"),
    "a version destroyed": _put_in(1, state="destroyed", wraps=[]),
    "a version scheduled": _put_in(1, state="scheduled", destroy_after="2000-01-01T00:00:00Z"),
    "a version dropped": _drop_version,
    "a version's number": _put_in(3, version=4),
    "wraps moved between versions": _move_wrap,
    "wraps of two versions exchanged": _swap_wraps,
    "wraps of two KEKs exchanged": _rename_kek,
    "two wraps of different keys": _split,
    "no wraps": _put_in(3, wraps=[]),
    "a KEK that is not configured": _foreign_kek,
    "17 wraps": _many_wraps(17),
    "1,000 wraps": _many_wraps(1000),
    "a lower sequence": _put(sequence=1),
    "a higher sequence": _put(sequence=5),
    "the highest sequence": _put(sequence=2**63 - 1),
    "a sequence of 0": _put(sequence=0),
    "a check value": _turn_bit,
    "a request id taken away": _put_in(3, request=None),
    "a request id added": _put_in(1, request="r-2"),
    "a creation time": _put_in(3, created="2000-01-01T00:00:00Z"),
    "an origin": _put_in(1, origin="imported"),
    "a key id": lambda _, fields: fields["versions"][2]["wraps"][0].update(key_id="0" * 16),
    "a missing KEK": _put_in(3, missing=["local:m1"]),
    "a policy": _put(policy="gold"),
    "moved away": _put(moved_to="vault"),
    "an extension": _put(extensions={"x-a": 1}),
    "another format": _put(format=2),
    "another tenant": _put(tenant="mallory"),
    "another ring id": _put(ring_id=base64.b64encode(bytes(12)).decode()),
    "an unknown field": _put(note=""),
    "fields in another order": _reorder,
}
"""Changes of the meaning, or of nothing but the bytes, by name."""

for _what, _edit in EDITS.items():
    ATTACKS[f"edited: {_what}"] = partial(_edited, _edit)


# --- other documents, and changes of the bytes ------------------------------------------------


def _other(tenant: str, attacker: Attacker) -> bytes:
    return attacker.others[tenant]


def _renamed(tenant: str, attacker: Attacker) -> bytes:
    return attacker.others[tenant].replace(b'"tenant":"%b"' % tenant.encode(), b'"tenant":"acme"')


ATTACKS |= {
    "another tenant's ring": partial(_other, "mallory"),
    "the ring of a tenant of another case": partial(_other, "Acme"),
    "another tenant's ring, renamed": partial(_renamed, "mallory"),
    "the ring of a tenant of another case, renamed": partial(_renamed, "Acme"),
    "an older payload under the header of now": lambda attacker: (
        attacker.current[:HEADER] + attacker.past[0][HEADER:]
    ),
    "the payload of now under an older header": lambda attacker: (
        attacker.past[0][:HEADER] + attacker.current[HEADER:]
    ),
}


def _head(change: Callable[[bytes], bytes], attacker: Attacker) -> bytes:
    return change(attacker.current[:HEADER]) + attacker.current[HEADER:]


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "auth id in upper case": lambda head: head[:14] + head[14:30].upper() + head[30:],
    "MAC in upper case": lambda head: head[:31] + head[31:].upper(),
    "magic in upper case": lambda head: head[:13].upper() + head[13:],
    "magic capitalised": lambda head: b"S" + head[1:],
    "space before": lambda head: b" " + head,
    "two spaces after the format": lambda head: head.replace(b" 1 ", b" 1  "),
    "two spaces before the MAC": lambda head: head[:30] + b" " + head[30:],
    "space at the end": lambda head: head[:-1] + b" \n",
    "tab before the MAC": lambda head: head[:30] + b"\t" + head[31:],
    "CRLF": lambda head: head[:-1] + b"\r\n",
    "CR": lambda head: head[:-1] + b"\r",
    "no line feed": lambda head: head[:-1],
    "two line feeds": lambda head: head + b"\n",
    "line feed before": lambda head: b"\n" + head,
    "byte order mark": lambda head: b"\xef\xbb\xbf" + head,
    "NUL at the end": lambda head: head[:-1] + b"\0\n",
    "format 01": lambda head: head.replace(b" 1 ", b" 01 "),
    "format 2": lambda head: head.replace(b" 1 ", b" 2 "),
    "format 11": lambda head: head.replace(b" 1 ", b" 11 "),
    "format of 5,000 digits": lambda head: head.replace(b" 1 ", b" " + b"1" * 5000 + b" "),
    "format in Arabic digits": lambda head: head.replace(b" 1 ", " \u0661 ".encode()),
    "one digit of the MAC less": lambda head: head[:-2] + b"\n",
    "one digit of the MAC more": lambda head: head[:-1] + b"0\n",
    "one digit of the auth id less": lambda head: head[:29] + head[30:],
    "MAC of letters that are no digits": lambda head: head[:31] + b"g" * 64 + b"\n",
    "MAC of full-width digits": lambda head: head[:31] + "\uff11".encode() * 64 + b"\n",
    "auth id of zeros": lambda head: head[:14] + b"0" * 16 + head[30:],
    "header twice": lambda head: head + head,
    "no header": lambda _: b"",
}
"""Variations of the header line, by name."""

for _what, _change in HEADERS.items():
    ATTACKS[f"header: {_what}"] = partial(_head, _change)


def _body(change: Callable[[bytes], bytes], attacker: Attacker) -> bytes:
    return attacker.current[:HEADER] + change(attacker.current[HEADER:])


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "line feed at the end": lambda payload: payload + b"\n",
    "space at the end": lambda payload: payload + b" ",
    "space inside": lambda payload: payload.replace(b'"format":1', b'"format": 1'),
    "NUL at the end": lambda payload: payload + b"\0",
    "last byte cut": lambda payload: payload[:-1],
    "nothing": lambda _: b"",
    "a field twice": lambda payload: b'{"primary":1,' + payload[1:],
    "a field twice, the wrong one last": lambda payload: payload[:-1] + b',"primary":1}',
    "every field twice": lambda payload: payload[:-1] + b"," + payload[1:],
    "a number of 200,000 digits": lambda payload: payload.replace(
        b'"sequence":4', b'"sequence":' + b"9" * 200_000
    ),
    "an exponent": lambda payload: payload.replace(b'"sequence":4', b'"sequence":1e999999999'),
    "100,000 levels": lambda _: b"[" * 100_000,
    "50,000 levels of objects": lambda _: b'{"":' * 50_000,
    "60,000 empty objects": lambda _: b"[" + b"{}," * 60_000 + b"{}]",
    "100,000 numbers": lambda _: b"[" + b"1," * 100_000 + b"1]",
    "a string of 200 KiB": lambda _: b'"' + b"\\u0041" * 34_000 + b'"',
    "as long as a ring may be": lambda payload: payload.ljust(262_144 - HEADER),
    "longer than a ring may be": lambda payload: payload + b" " * 262_144,
    "not UTF-8": lambda payload: payload.replace(b"default", b"d\xe9fault"),
}
"""Other bytes where the payload stands, by name."""

for _what, _change in BODIES.items():
    ATTACKS[f"payload: {_what}"] = partial(_body, _change)
