"""Prints the AsyncAPI document of the websocket service, docs/reference/asyncapi.json."""

import sys

from transport.websocket.asyncapi import text

sys.stdout.write(text())
