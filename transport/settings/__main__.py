"""Prints the reference of all settings, docs/reference/settings.md."""

import sys

from transport.settings.listing import reference

sys.stdout.write("\n".join(reference()))
