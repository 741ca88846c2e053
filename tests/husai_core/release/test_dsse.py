from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from husai_core.release import dsse

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = dsse.public_bytes(KEY)


def test_pae_is_that_of_the_protocol() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_those_of_the_encoded_bytes() -> None:
    assert dsse.pae("é", "ü".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xbc"


def test_a_signed_payload_comes_back() -> None:
    assert dsse.verify(dsse.sign("text/plain", b"\x00\xff", KEY), PUBLIC) == b"\x00\xff"


@pytest.mark.parametrize(
    "change",
    [
        {"payload": dsse.encode(b"other")},
        {"payloadType": "text/html"},
        {"payload": "not base64!"},
        {"signatures": []},
    ],
)
def test_a_changed_envelope_is_refused(change: dict[str, object]) -> None:
    envelope = dsse.sign("text/plain", b"payload", KEY)
    with pytest.raises(ValueError, match=r"signature|signed|base64"):
        dsse.verify(envelope.model_copy(update=change), PUBLIC)


def test_another_key_is_refused() -> None:
    stranger = dsse.public_bytes(Ed25519PrivateKey.from_private_bytes(b"1" * 32))
    with pytest.raises(ValueError, match="not signed by this key"):
        dsse.verify(dsse.sign("text/plain", b"payload", KEY), stranger)


def test_only_canonical_base64_is_read() -> None:
    assert dsse.decode("QQ==") == b"A"
    with pytest.raises(ValueError, match="canonical"):
        dsse.decode("QR==")
