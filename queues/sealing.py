"""Encryption at rest, for queues that ask for it.

A sealed body is, in this order: the version (1 byte), the length of the key's id
(1 byte), the key's id, a nonce (12 bytes), and what AES-256-GCM made of the body
(with a tag of 16 bytes). Version, id and project are authenticated too, so a body
cannot be carried over to another tenant. Queue and message id are not: a move to
the dead-letter queue, which a store makes without the key, changes both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from queues.errors import Unsealable
from queues.models import Message

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = 1
_NONCE = 12


class KeyRing:
    """Keys (32 bytes) by id: the first one seals, all of them open."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {id_.encode(): key for id_, key in keys.items()}
        self._first = next(iter(self._keys), None)

    def seal(self, project: str, body: bytes) -> bytes:
        """Encrypt a body; raises Unsealable where there is no key."""
        if self._first is None:
            raise Unsealable
        header = bytes((_VERSION, len(self._first))) + self._first
        nonce = os.urandom(_NONCE)
        return header + nonce + self._cipher(self._first).encrypt(nonce, body, header + project.encode())

    def open(self, project: str, sealed: bytes) -> bytes:
        """Decrypt a body.

        Raises Unsealable for a key that is not on the ring, and for what was sealed
        for another project, or changed since.
        """
        from cryptography.exceptions import InvalidTag

        end = 2 + sealed[1] if len(sealed) > 1 else 0
        header, nonce, text = sealed[:end], sealed[end : end + _NONCE], sealed[end + _NONCE :]
        if sealed[:1] != bytes((_VERSION,)) or header[2:] not in self._keys:
            raise Unsealable("A message was encrypted with a key that this service does not have.")
        try:
            return self._cipher(header[2:]).decrypt(nonce, text, header + project.encode())
        except (InvalidTag, ValueError) as error:
            raise Unsealable("An encrypted message was changed in the store.") from error

    def reveal(self, project: str, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages with the bodies open that are sealed; raises Unsealable."""
        if not any(message.sealed for message in messages):
            return messages
        return list(self._revealed(project, messages))

    def _revealed(self, project: str, messages: Iterable[Message]) -> Iterable[Message]:
        for message in messages:
            if message.sealed:
                yield replace(message, body=self.open(project, message.body), sealed=False)
            else:
                yield message

    def _cipher(self, id_: bytes) -> AESGCM:
        # Imported when it is needed: most services never are asked to encrypt.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._keys[id_])
