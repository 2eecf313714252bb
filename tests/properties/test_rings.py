"""Properties of key rings: what is written is read, by two readers alike, and no edit is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentra_kms.errors import KMSError, RingRejected
from sentra_kms.keys.ring import Ring, check_ring, decode, encode
from tests.properties.both_readers import AUTHENTICATOR, KEY, fields_of, read_by_both
from tests.properties.strategies import changed_json, edited, rings, written
from tests.reader import writer
from tests.soak import scale

pytestmark = [pytest.mark.soak, pytest.mark.slow]
few = settings(max_examples=scale(ci=50, soak=3_000))  # a ring takes long to draw


@few
@given(rings())
def test_ring_comes_back_as_it_was_written(ring: Ring) -> None:
    """Every ring that keeps the rules is written and read, by the independent reader as well."""
    check_ring(ring, ring.tenant)
    payload = encode(ring)
    assert read_by_both(payload, ring.tenant) == ring
    assert encode(decode(payload, ring.tenant)) == payload
    assert AUTHENTICATOR.sign(ring.tenant, payload) == writer.sign(KEY, ring.tenant, payload)


@few
@given(st.data(), rings())
def test_way_in_which_a_ring_is_written_does_not_matter(data: st.DataObject, ring: Ring) -> None:
    """White space, order of fields and escapes are free; the ring is the same."""
    payload = data.draw(written(json.loads(encode(ring))))
    again = read_by_both(payload, ring.tenant)
    assert again is not None
    assert fields_of(again) == fields_of(ring)


@few
@given(st.data(), rings())
def test_both_readers_judge_a_changed_payload_alike(data: st.DataObject, ring: Ring) -> None:
    """Whatever a holder of the authentication key writes: taken by both readers, or by neither."""
    changed = data.draw(changed_json(json.loads(encode(ring))))
    read_by_both(data.draw(written(changed)), ring.tenant)


@few
@given(st.data(), rings())
def test_both_readers_judge_edited_bytes_alike(data: st.DataObject, ring: Ring) -> None:
    """The same for a payload whose bytes were edited before it was signed."""
    read_by_both(data.draw(edited(encode(ring))), ring.tenant)


@few
@given(st.data(), rings())
def test_no_edit_of_a_document_is_taken(data: st.DataObject, ring: Ring) -> None:
    """Any edit, in header or payload, is refused; so is another tenant's name for it."""
    document = AUTHENTICATOR.sign(ring.tenant, encode(ring))
    with pytest.raises(RingRejected) as caught:
        AUTHENTICATOR.verify(ring.tenant, data.draw(edited(document)))
    assert caught.value.subject == ring.tenant
    with pytest.raises(RingRejected):
        AUTHENTICATOR.verify(ring.tenant + "x", document)


@given(st.binary(max_size=300), st.booleans())
def test_bytes_that_are_no_ring_are_refused(
    data: bytes,
    headed: bool,  # noqa: FBT001
) -> None:
    """Whatever lies where a ring belongs is refused as such, signed or not."""
    with pytest.raises(RingRejected):
        AUTHENTICATOR.verify("acme", (b"sentra-ring 1 " if headed else b"") + data)
    with pytest.raises(KMSError) as caught:
        decode(data, "acme")
    assert type(caught.value) is RingRejected
