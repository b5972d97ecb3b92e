"""Settings: the only reader of the configuration file and of the environment.

`model` says what can be set and `checks` what a value must be, `reading` finds
the values, `listing` shows them, `advice` thinks them over. `Settings()` is every default and reads nothing.
"""

from queues.redaction import hide_password
from transport.settings.advice import SettingsError, check_exposure, warnings
from transport.settings.model import (
    ApiSettings,
    CacheSettings,
    CorsSettings,
    EncryptionSettings,
    IdempotencySettings,
    JanitorSettings,
    LogSettings,
    Settings,
    SignedUrlSettings,
    StorageSettings,
    WebsocketSettings,
    WireSettings,
)
from transport.settings.reading import Loaded, load

__all__ = [
    "ApiSettings",
    "CacheSettings",
    "CorsSettings",
    "EncryptionSettings",
    "IdempotencySettings",
    "JanitorSettings",
    "Loaded",
    "LogSettings",
    "Settings",
    "SettingsError",
    "SignedUrlSettings",
    "StorageSettings",
    "WebsocketSettings",
    "WireSettings",
    "check_exposure",
    "hide_password",
    "load",
    "warnings",
]
