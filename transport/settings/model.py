"""What can be set: names, types, defaults, bounds, and what each setting is for.

The descriptions are the reference: `hermod config --toml` and
docs/reference/settings.md are made of them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from queues.limits import MAX_PROJECT, Limits
from queues.models import Role
from queues.webhook_keys import read_private_key
from transport.settings import checks

Bind: TypeAlias = Annotated[str, AfterValidator(checks.bind)]
Seconds: TypeAlias = Annotated[int, Field(ge=1, le=checks.MAX_SECONDS)]
Interval: TypeAlias = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Rate: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Quota: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(checks.base_url)]
Origin: TypeAlias = Annotated[str, AfterValidator(checks.origin)]
SigningKey: TypeAlias = Annotated[SecretStr, AfterValidator(checks.signing_key)]
PrivateKey: TypeAlias = Annotated[SecretStr, AfterValidator(checks.private_key)]
EncryptionKey: TypeAlias = Annotated[SecretStr, AfterValidator(checks.encryption_key)]
AccessRules: TypeAlias = dict[str, Annotated[Role, BeforeValidator(checks.role)]]


class Section(BaseModel):
    """Frozen; a mistyped name is an error; values stay out of error texts, for some are secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Listening(Section):
    """A service that listens."""

    bind: Bind

    def address(self) -> tuple[str, int]:
        """Return host (an IPv6 address without brackets) and port."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)


class ApiSettings(Listening):
    """The REST service."""

    bind: Bind = Field(
        default="127.0.0.1:8888",
        description="Address to listen on: HOST:PORT or [IPv6]:PORT.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        le=512,
        description="Worker processes. With the memory: store there is one, which is then the default too.",
    )
    threads: int = Field(
        default=8,
        ge=1,
        le=512,
        description="Threads per worker process: how many requests one worker handles at a time.",
    )
    waiters: int = Field(
        default=250,
        ge=0,
        le=10_000,
        description="Requests of one worker that may wait for messages (wait=SECONDS) at a time, beside those that it"
        " handles; more than these are answered at once.",
    )
    backlog: int = Field(
        default=500,
        ge=0,
        le=10_000,
        description="Requests of one worker that may stand in line while all its threads are busy; more than these are"
        " refused at once (503).",
    )
    patience: Interval = Field(
        default=5.0,
        description="Seconds that a request may stand in line; then it is refused (503), for its client may be gone.",
    )
    graceful_timeout: Seconds = Field(
        default=30,
        description="Seconds that requests in flight have to finish when the service is told to stop.",
    )
    keepalive: int = Field(
        default=75,
        ge=0,
        le=checks.MAX_SECONDS,
        description="Seconds that an idle connection is kept open for the next request; 0 closes it at once.",
    )


class WebsocketSettings(Listening):
    """The websocket service."""

    bind: Bind = Field(
        default="127.0.0.1:9000",
        description="Address to listen on: HOST:PORT or [IPv6]:PORT.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=512,
        description="Worker processes. With the memory: store, which one process has for itself, there is no websocket service.",
    )
    threads: int = Field(
        default=16, ge=1, le=512, description="Threads per worker process that wait for the store."
    )
    backlog: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Frames of one worker that may stand in line while all its threads are busy; more than these are"
        " refused at once (503).",
    )
    patience: Interval = Field(
        default=5.0, description="Seconds that a frame may stand in line; then it is refused (503)."
    )
    connections: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Connections per worker process; more are refused."
    )
    subscriptions: int = Field(
        default=100, ge=1, le=100_000, description="Subscriptions that one connection may have."
    )
    send_queue: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Frames that may wait for a client to read them; beyond that it is disconnected (1008).",
    )
    idle_timeout: Seconds = Field(
        default=3600,
        description="Seconds after which a connection without subscriptions that sends nothing is closed (1001).",
    )
    ping_interval: Interval = Field(
        default=20.0,
        description="Seconds of silence after which a client is pinged; twice as much and it is given up.",
    )
    heartbeat: Interval = Field(
        default=15.0,
        description="Seconds between two heartbeats of a subscription that has sequence numbers.",
    )
    retention: Seconds = Field(
        default=600,
        description="Seconds for which pushed messages are kept, for subscribers that come back.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins whose pages may connect, such as https://console.example.org, or * for all. A page of"
        " another origin is refused (403); what is no browser names no origin, and may connect.",
    )
    graceful_timeout: Seconds = Field(
        default=10,
        description="Seconds that clients have to close when the service is told to stop; they are told to reconnect"
        " (1012).",
    )
    notification_host: str = Field(
        default="",
        description="Host that stands in the subscriber of a connection's subscription; empty for the name of this"
        " machine. Nothing connects to it.",
    )


class WireSettings(Section):
    """Variants of the protocol."""

    enable_checksum: bool = Field(
        default=False,
        description="Whether message listings show a checksum of each body.",
    )
    message_delete_with_claim_id: bool = Field(
        default=False,
        description="Whether deleting messages by a list of ids must name the claims that hold them.",
    )
    client_id_uuid_safe: Literal["strict", "off"] = Field(
        default="strict",
        description="What a Client-ID may be: strict demands a UUID, off any text of a permitted length.",
    )
    min_length_client_id: int = Field(
        default=10,
        ge=1,
        le=255,
        description="Fewest characters of a Client-ID when client_id_uuid_safe is off.",
    )
    max_length_client_id: int = Field(
        default=36,
        ge=1,
        le=255,
        description="Most characters of a Client-ID when client_id_uuid_safe is off.",
    )

    @model_validator(mode="after")
    def _lengths_fit(self) -> WireSettings:
        if self.min_length_client_id > self.max_length_client_id:
            raise ValueError("min_length_client_id should be at most max_length_client_id")
        return self


class SignedUrlSettings(Section):
    """Pre-signed URLs."""

    secret_keys: tuple[SigningKey, ...] = Field(
        default=(),
        description="Secret keys of at least 16 characters: the first one signs, all verify. To rotate, put a new one first and drop the"
        " old one when its last URL has expired. Without a key no URL can be signed.",
    )

    def signing_keys(self) -> list[bytes]:
        """Return the keys as bytes; the first one signs."""
        return [key.get_secret_value().encode() for key in self.secret_keys]


class EncryptionSettings(Section):
    """Encryption at rest, for queues that ask for it."""

    keys: tuple[EncryptionKey, ...] = Field(
        default=(),
        description="Keys as id:base64 of 32 bytes. The first one encrypts, all decrypt: to rotate, put a new"
        " one first and keep the old one until nothing encrypted with it is left. An id never gets another key.",
    )

    @field_validator("keys")
    @classmethod
    def _ids_differ(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        ids = [checks.split_key(key)[0] for key in keys]
        if len(set(ids)) < len(ids):
            raise ValueError("two keys have the same id")
        return keys

    def ring(self) -> dict[str, bytes]:
        """Return the keys, 32 bytes each, by id; the first one encrypts."""
        return dict(map(checks.split_key, self.keys))


class IdempotencySettings(Section):
    """Safe repetition of posts."""

    window: Seconds = Field(
        default=600,
        description="Seconds during which a post repeated with the same Idempotency-Key is recognised.",
    )


class RateSettings(Section):
    """How fast each project may go, in each process; 0 bounds nothing."""

    requests: Rate = Field(
        default=0.0,
        description="Requests, and frames over websockets, of a project in a second; more are refused (429).",
    )
    messages: Rate = Field(
        default=0.0,
        description="Messages, and events, that a project posts in a second; more are refused (429).",
    )
    burst: Interval = Field(
        default=2.0,
        description="Seconds' worth of these rates that a project which did less may catch up on at once.",
    )


class QuotaSettings(Section):
    """How much each project may have; 0 bounds nothing."""

    queues: Quota = Field(
        default=0, description="Queues of a project, and as many topics; more are refused (403)."
    )
    subscriptions: Quota = Field(
        default=0, description="Subscriptions of a project, to all its queues; more are refused (403)."
    )
    messages: Quota = Field(
        default=0, description="Messages of a project, in all its queues; more are refused (403)."
    )
    bytes: Quota = Field(
        default=0,
        description="Bytes that the messages of a project may take, if each has as many as one may have"
        " (limits.max_messages_post_size): it bounds their number to the quotient.",
    )


class CacheSettings(Section):
    """What processes remember between requests."""

    queue_age: float = Field(
        default=1.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds that another process may go on using a queue's old metadata; 0 reads them every time.",
    )


class StorageSettings(Section):
    """Access to the stores."""

    timeout: Interval = Field(
        default=5.0,
        description="Seconds that any wait for a store lasts at most; after that the answer is 503.",
    )


class JanitorSettings(Section):
    """The process that reclaims what has expired. Nothing but disk space depends on it."""

    interval: Interval = Field(default=1.0, description="Seconds between two rounds.")
    batch: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Rows reclaimed in one step; requests get their turn between steps.",
    )


class NotifierSettings(Section):
    """The processes that tell subscribers of messages."""

    concurrency: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Deliveries that one process has under way at a time: half of them for one project at most, and fewer"
        " where others need room. Each needs an open file.",
    )
    per_subscriber: int = Field(
        default=32, ge=1, le=10_000, description="How many of them go to the same subscriber at a time."
    )
    timeout: Interval = Field(
        default=20.0,
        description="Seconds that an attempt to deliver lasts at most; then it is tried again by the retry policy.",
    )
    connect_timeout: Interval = Field(
        default=5.0, description="Seconds that connecting to a subscriber lasts at most."
    )
    require_confirmation: bool = Field(
        default=False,
        description="Whether a subscriber is told nothing until it has confirmed that it wants to be. Needs a key in"
        " signed_url.secret_keys.",
    )
    public_url: BaseUrl = Field(
        default="",
        description="Where subscribers reach the REST service to confirm, such as https://queues.example.org.",
    )
    websocket_url: BaseUrl = Field(
        default="",
        description="Where subscribers reach the websocket service to confirm, such as wss://queues.example.org.",
    )
    external_confirmation_url: str = Field(
        default="",
        description="A page that confirms for whoever gets mail: it is opened with what to send as its query. Without"
        " one nobody is asked by mail, so that mail needs require_confirmation off.",
    )
    signing_keys: tuple[SigningKey, ...] = Field(
        default=(),
        description="Secret keys of at least 16 characters, from which the key of each subscription is derived, by which its webhooks are signed"
        " (Standard Webhooks, v1). All sign: to rotate, put a new one first and drop the old one later.",
    )
    private_keys: tuple[PrivateKey, ...] = Field(
        default=(),
        description="Private keys (whsk_ and base64 of an ed25519 key) by which webhooks are signed too (v1a).",
    )
    dead_letter_ttl: Seconds = Field(
        default=1_209_600,
        description="Seconds that a delivery which was given up can be looked at and sent again.",
    )
    lease: int = Field(
        default=60,
        ge=5,
        le=3600,
        description="Seconds after which another notifier takes over what one had that was killed.",
    )

    def shared_keys(self) -> list[bytes]:
        """Return the keys from which those of subscriptions are derived, the newest first."""
        return [key.get_secret_value().encode() for key in self.signing_keys]

    def ed25519_keys(self) -> list[bytes]:
        """Return the private keys, 32 bytes each, the newest first."""
        return [read_private_key(key.get_secret_value()) for key in self.private_keys]


class EgressSettings(Section):
    """Where webhooks may go."""

    allow: tuple[Annotated[str, AfterValidator(checks.network)], ...] = Field(
        default=(),
        description="Networks (CIDR) that webhooks may go to though they are not public, such as 10.20.0.0/16.",
    )


class MailSettings(Section):
    """Mail to subscribers."""

    host: str = Field(default="", description="SMTP server; without one no mail is sent.")
    port: int = Field(default=25, ge=1, le=65535, description="Its port.")
    security: Literal["plain", "starttls", "tls"] = Field(
        default="starttls",
        description="How the connection is encrypted: tls from the start, starttls once it stands, plain not at all.",
    )
    user: str = Field(
        default="", description="User name at the server; empty for none. Needs an encrypted connection."
    )
    password: SecretStr = Field(
        default=SecretStr(""), description="Password at the server; none goes in the clear."
    )
    sender: Annotated[str, AfterValidator(checks.mail_address)] = Field(
        default="hermod@localhost", description="Sender of mails whose subscription names none."
    )

    @model_validator(mode="after")
    def _password_stays_secret(self) -> MailSettings:
        if self.user and self.security == "plain":
            raise ValueError(
                "mail.user should be empty where mail.security is plain, for anybody on the way could read the password"
            )
        return self


class BridgeSettings(Section):
    """Notifications of OpenStack services, taken from RabbitMQ."""

    url: Annotated[SecretStr, AfterValidator(checks.broker)] = Field(
        default=SecretStr(""),
        description="RabbitMQ, such as amqp://user:password@host:5672//; without it `hermod bridge` does not start.",
    )
    exchanges: tuple[str, ...] = Field(
        default=(), description="Exchanges of the services, such as nova and neutron."
    )
    topics: tuple[str, ...] = Field(
        default=("notifications",), description="Topics of their notifications; all priorities are taken."
    )
    source_queue: str = Field(
        default="hermod", description="Queue of RabbitMQ that the bridge declares and consumes."
    )
    queue_arguments: dict[str, Annotated[bool | int | str, BeforeValidator(checks.argument)]] = Field(
        default={"x-queue-type": "classic"},
        description="Arguments that source_queue is declared with. RabbitMQ refuses others than those of a queue that is"
        " there. A quorum queue needs x-delivery-limit = -1 from RabbitMQ 4 on, or it drops what a store refuses for long.",
    )
    dead_letter_exchange: str = Field(
        default="",
        max_length=255,
        description="Exchange of RabbitMQ to which notifications go that are malformed; it has to be there. Empty drops"
        " them, with a line in the log.",
    )
    durable_exchanges: bool = Field(
        default=False,
        description="Whether the exchanges are durable: what the services have as amqp_durable_queues. RabbitMQ refuses"
        " the other value for an exchange that is there.",
    )
    project: str = Field(
        default="", max_length=MAX_PROJECT, description="Project that the notifications are stored for."
    )
    queue: Annotated[str, AfterValidator(checks.queue_name)] = Field(
        default="notifications", description="Queue that they are stored in."
    )

    @model_validator(mode="after")
    def _leads_somewhere(self) -> BridgeSettings:
        if self.url.get_secret_value() and not (self.exchanges and self.topics and self.project):
            raise ValueError(
                "bridge.url should be set with bridge.exchanges, bridge.topics and bridge.project"
            )
        return self


class KeystoneSettings(Section):
    """Keystone, for subscribers that want its tokens: trust+http and trust+https."""

    auth_url: Annotated[str, AfterValidator(checks.keystone)] = Field(
        default="",
        description="Where Keystone is, such as https://keystone.example.org:5000/v3; without it nobody can be"
        " subscribed that way.",
    )
    username: str = Field(
        default="", description="The service's own user, whom those who subscribe come to trust."
    )
    password: SecretStr = Field(default=SecretStr(""), description="Password of that user.")
    user_domain_name: str = Field(default="Default", description="Domain of that user.")
    project_name: str = Field(
        default="",
        description="Project that the user's own tokens are scoped to, if Keystone demands that; empty for none.",
    )
    project_domain_name: str = Field(default="Default", description="Domain of that project.")
    cafile: Annotated[str, AfterValidator(checks.readable)] = Field(
        default="",
        description="File with the certificates (PEM) by which Keystone proves who it is; empty for those of the system.",
    )
    timeout: float = Field(
        default=5.0,
        gt=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds that connecting to Keystone lasts at most, and each answer of it.",
    )

    @model_validator(mode="after")
    def _the_service_is_somebody(self) -> KeystoneSettings:
        if self.auth_url and not (self.username and self.password.get_secret_value()):
            raise ValueError("keystone.auth_url should be set with keystone.username and keystone.password")
        return self


class LogSettings(Section):
    """The log, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(checks.lower)] = Field(
        default="info",
        description="The least grave entries that are written: debug, info (one per request), warning or error.",
    )
    format: Annotated[Literal["auto", "human", "json"], BeforeValidator(checks.lower)] = Field(
        default="auto",
        description="human is for reading, json is one JSON object per line, auto is human on a terminal"
        " and json elsewhere.",
    )


class CorsSettings(Section):
    """Use from web pages of other origins."""

    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins whose pages may call the service, such as https://console.example.org, or * for all."
        " Without any, the service sends no CORS headers.",
    )


class Settings(Section):
    """Everything that can be set."""

    store: Annotated[str, AfterValidator(checks.store)] = Field(
        default="sqlite:///hermod-data/hermod.db",
        repr=False,
        description="URI of the store that keeps queues, messages and tokens. sqlite:/// is followed by a path,"
        " which is relative to the working directory unless it begins with a fourth slash; redis:// and mongodb://"
        " name a server (see the page on stores). memory: forgets"
        " everything when the process ends.",
    )
    auth_strategy: Literal["none", "token"] = Field(
        default="none",
        description="How callers prove who they are: none believes the X-Project-ID header, token demands a token"
        " made by `hermod token create`.",
    )
    admin: bool = Field(
        default=False,
        description="Whether the operator's routes, such as /v2/health, are served.",
    )
    pooling: bool = Field(
        default=False,
        description="Whether queues live in pools, which `hermod pool add` registers; the store then keeps what"
        " describes them, and the queues themselves only as long as there is no pool.",
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description="Whether auth_strategy none is accepted on an address that other machines can reach."
        " Only safe where something in front of the service checks who is calling.",
    )
    api: ApiSettings = ApiSettings()
    websocket: WebsocketSettings = WebsocketSettings()
    limits: Annotated[Limits, AfterValidator(checks.limits)] = Limits()
    wire: WireSettings = WireSettings()
    signed_url: SignedUrlSettings = SignedUrlSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    rate: RateSettings = RateSettings()
    quota: QuotaSettings = QuotaSettings()
    cache: CacheSettings = CacheSettings()
    storage: StorageSettings = StorageSettings()
    janitor: JanitorSettings = JanitorSettings()
    notifier: NotifierSettings = NotifierSettings()
    egress: EgressSettings = EgressSettings()
    mail: MailSettings = MailSettings()
    bridge: BridgeSettings = BridgeSettings()
    keystone: KeystoneSettings = KeystoneSettings()
    log: LogSettings = LogSettings()
    cors: CorsSettings = CorsSettings()
    access: Annotated[AccessRules, AfterValidator(checks.rules)] = Field(
        default={},
        description="Roles by access rule, where they differ from the defaults: reader, member or admin is the"
        ' least role that may do it, such as "queues:create" = "admin".',
    )

    @property
    def in_memory(self) -> bool:
        """Whether the store lives, and dies, with one process."""
        return self.store.startswith("memory:")

    @model_validator(mode="before")
    @classmethod
    def _one_worker_in_memory(cls, data: object) -> object:
        """Lower the default number of workers; one that was asked for stays, to be refused below."""
        if isinstance(data, dict) and str(data.get("store", "")).startswith("memory:"):
            api = data.get("api", {})
            if isinstance(api, dict):
                return {**data, "api": {"workers": 1, **api}}
        return data

    @model_validator(mode="after")
    def _who_is_asked_can_confirm(self) -> Settings:
        if self.notifier.require_confirmation and not self.signed_url.secret_keys:
            raise ValueError(
                "notifier.require_confirmation should be off without a key in signed_url.secret_keys, for nobody"
                " could be asked, and nobody would be told anything"
            )
        return self

    @model_validator(mode="after")
    def _a_message_has_room(self) -> Settings:
        if 0 < self.quota.bytes < self.limits.max_messages_post_size:
            raise ValueError(
                "quota.bytes should be at least limits.max_messages_post_size, for a message may have as many"
            )
        return self

    @property
    def most_messages(self) -> int:
        """How many messages a project may have; 0 for any number."""
        by_size = self.quota.bytes // self.limits.max_messages_post_size
        return min(filter(None, (self.quota.messages, by_size)), default=0)

    @model_validator(mode="after")
    def _memory_is_not_shared(self) -> Settings:
        if self.in_memory and self.api.workers > 1:
            raise ValueError(
                "api.workers should be 1 with the memory: store, for each process would have a store of its own"
            )
        return self


#: What each of the limits means; their defaults stand in `queues.limits.Limits`.
LIMITS = {
    "default_message_ttl": "Seconds a message lives when neither its post nor its queue says.",
    "default_message_delay": "Seconds until a message can be claimed when neither its post nor its queue says.",
    "default_claim_ttl": "Seconds a claim lasts when the request does not say.",
    "default_claim_grace": "Seconds that messages outlive their claim at least, when the request does not say.",
    "default_subscription_ttl": "Seconds a subscription lasts when the request does not say.",
    "max_queues_per_page": "Most queues on one page of a listing.",
    "max_messages_per_page": "Most messages on one page of a listing; also most ids in one request.",
    "max_subscriptions_per_page": "Most subscriptions on one page of a listing.",
    "max_messages_per_claim_or_pop": "Most messages in one claim, or removed by one pop.",
    "max_pools_per_page": "Most pools on one page of a listing.",
    "max_flavors_per_page": "Most flavors on one page of a listing.",
    "max_queue_metadata": "Most bytes of a queue's metadata.",
    "max_messages_post_size": "Most bytes of the body of one post of messages; a queue can set less.",
    "max_message_ttl": "Most seconds a message may be told to live.",
    "max_message_delay": "Most seconds a message may be delayed.",
    "max_claim_ttl": "Most seconds a claim may last.",
    "max_claim_grace": "Most seconds of grace a claim may ask for.",
}
