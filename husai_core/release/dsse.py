"""DSSE envelopes with Ed25519 signatures (github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from husai_core import identity


class Signature(BaseModel):
    """One signature; `keyid` is the SHA-256 of the raw public key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keyid: str
    sig: str


class Envelope(BaseModel):
    """A signed payload; `payload` and `sig` are base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    payloadType: str
    payload: str
    signatures: list[Signature]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 raw bytes of the public key."""
    return key.public_key().public_bytes_raw()


def sign(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> Envelope:
    """Wrap and sign a payload."""
    signature = Signature(keyid=identity.sha256(public_bytes(key)), sig=encode(key.sign(pae(payload_type, payload))))
    return Envelope(payloadType=payload_type, payload=encode(payload), signatures=[signature])


def verify(envelope: Envelope, public_key: bytes) -> bytes:
    """The payload, once its single signature has been checked.

    Raises:
        ValueError: the signature, its key id or the encoding is wrong.
    """
    if len(envelope.signatures) != 1 or envelope.signatures[0].keyid != identity.sha256(public_key):
        raise ValueError("the envelope is not signed by this key")
    payload = decode(envelope.payload)
    signature = decode(envelope.signatures[0].sig)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, pae(envelope.payloadType, payload))
    except InvalidSignature:
        raise ValueError("the signature does not match the payload") from None
    return payload


def encode(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Bytes of canonical standard base64.

    Raises:
        ValueError: the text is not what `encode` would write.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
    if encode(data) != text:
        raise ValueError("not canonical base64")
    return data
