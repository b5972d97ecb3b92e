"""What one connection says, and what it is answered: everything that needs no event loop.

A session handles one request at a time, in whatever thread. What a request changes about the
connection itself happens when its reply is on its way: see `Handled.then`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, Protocol

import msgspec

from queues.errors import (
    BadSignature,
    ClaimNotFound,
    ClaimNotHeld,
    Invalid,
    MessageNotFound,
    Overloaded,
    SubscriberTaken,
    Unauthenticated,
)
from queues.identity import new_claim_id
from queues.limits import check_range
from queues.models import Caller, Push, Role, Subscription
from queues.service.pushes import Position
from queues.service.subscriptions import Terms
from queues.service.waiting import Vigil
from queues.signing import SignedUrl
from transport.auth import (
    Identity,
    NoAuthentication,
    client_id_of,
    keystone_token_of,
    project_of,
    strategy,
)
from transport.dispatch import Reply, attempt, dispatch
from transport.operations.queues import address_of
from transport.problems import INTERNAL, Problem, problem_of
from transport.service import Service
from transport.websocket import frames
from transport.websocket.actions import Action, Answer, created, removed, taken
from transport.websocket.frames import Frame, FrameRefused, Payload
from transport.websocket.reads import WishBody
from transport.websocket.request import Headers, KnownHeaders, SocketRequest, arguments, checked_headers

_FRESH = 1000  # ms for which a token that was looked at counts as good
_MOST_CREDIT = 1000  # messages that may be leased to one subscription at a time
_NOBODY = " "  # the project of those who name the empty one, which no other transport lets anybody name


class ClaimMode(msgspec.Struct, frozen=True, kw_only=True):
    """How messages are leased to a subscription."""

    credit: int = 10  # messages at a time
    claim_ttl: int | None = None  # seconds
    claim_grace: int | None = None  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseWish:
    """A subscription that wants messages leased to it, as long as its connection lasts."""

    id: str
    caller: Caller
    queue_name: str
    mode: ClaimMode
    binary: bool


class Link(Protocol):
    """The connection, as its session sees it; to be called within its event loop, but for what is fixed."""

    id: str  # never used again
    node_id: str  # of the process that serves it
    uri: str  # what its subscriptions show as their subscriber

    @property
    def room(self) -> int:
        """How many subscriptions it may have still."""

    def check_in(self) -> None:
        """See to it that the process counts as alive; in whatever thread. Raises StoreError."""

    def follow(self, subscription: Subscription, after: Position, *, binary: bool) -> None:
        """Begin to pass messages on."""

    def lease(self, wish: LeaseWish) -> None:
        """Begin to lease messages."""

    def forget(self, subscription_id: str) -> None:
        """Pass no more messages on."""

    def settled(self, claim_id: str) -> None:
        """Note that a leased message is done with, or was given back."""

    def renewed(self, claim_id: str, seconds: int) -> None:
        """Note that a leased message stays so for longer."""

    def authenticated(self, identity: Identity) -> None:
        """Note who speaks, and until when."""

    def leases(self, subscription_id: str) -> bool:
        """Whether messages are leased to a subscription of this connection."""


@dataclass(frozen=True, slots=True)
class Handled:
    """A request that was answered."""

    reply: Payload
    then: Callable[[], None] | None = None  # to be called when the reply is on its way
    first: Callable[[], None] | None = None  # to be called before it is


class Waiting(NamedTuple):
    """A request that waits for messages."""

    vigil: Vigil[Any]
    operation: str
    finish: Callable[[Reply[Any]], Handled]


@dataclass
class Session:
    """The state of one connection, and the way its requests are handled."""

    service: Service
    actions: Mapping[str, Action]
    link: Link
    _identity: Identity | None = field(default=None, init=False)
    _token: str | None = field(default=None, init=False)  # the last that was good
    _checked: int = field(default=0, init=False)  # ms; when it was looked at last
    _keystone_token: str | None = field(default=None, init=False)  # of Keystone, where it says who speaks

    def __post_init__(self) -> None:
        self._lock = Lock()  # somebody else may look after the token
        self._strategy = strategy(self.service.settings.auth_strategy, self.service.tokens)
        self._trusting = isinstance(self._strategy, NoAuthentication)

    def handle(self, payload: Payload, until: float = math.inf) -> Handled | Waiting:
        """Handle a request, unless that begins too late (monotonic seconds); raises nothing."""
        if time.monotonic() > until:
            return self.refuse(payload)
        try:
            return self._handle(frames.read(payload))
        except FrameRefused as refusal:
            return _refused(refusal.frame, refusal)

    def refuse(self, payload: Payload) -> Handled:
        """Refuse a request, for there is too much to do; raises nothing."""
        try:
            return _told(frames.read(payload), problem_of(Overloaded()))
        except FrameRefused as refusal:
            return _refused(refusal.frame, refusal)

    def still_valid(self) -> bool:
        """Whether the connection may go on: its token was neither revoked nor has it expired."""
        token = self._token
        if token is None:
            return True
        identity = None
        with suppress(Unauthenticated):
            identity = self._strategy.identify({"X-Auth-Token": token}.get)
        with self._lock:
            if self._token != token:  # there is another one meanwhile
                return True
            if self._identity is not None:
                self._identity, self._checked = identity, self.service.clock()
        return identity is not None

    def _handle(self, frame: Frame) -> Handled | Waiting:
        name = frame.action
        if name == "authenticate":
            return self._authenticate(frame)
        own = _OWN.get(name) if isinstance(name, str) else None
        action = self.actions.get(name) if isinstance(name, str) else None
        known = own or action
        if known is None:
            raise FrameRefused(f"{name} is not a valid action", frame)
        headers = checked_headers(frame, Headers)
        body = arguments(frame, known.body)
        if action is not None and action.operation.name == "subscription_create" and not body.subscriber:
            own = _SUBSCRIBE
        reply = attempt(str(name), partial(self._caller, frame, headers, action, body))
        caller = reply.value
        if caller is None:
            return _told(frame, reply.problem or INTERNAL)
        if own is not None:
            done = attempt(str(name), partial(self._act_here, own, frame, caller, body))
            return done.value if done.value is not None else _told(frame, done.problem or INTERNAL, body)
        assert action is not None  # noqa: S101 - one of the two is there
        return self._act(frame, caller, action, body)

    def _act_here(self, own: Own, frame: Frame, caller: Caller, body: Any) -> Handled:  # noqa: ANN401 - see Own
        """Do what is about this connection."""
        self.service.rates.request(caller.project)
        self._check_size(frame)
        return own.run(self, frame, caller, body)

    def _act(self, frame: Frame, caller: Caller, action: Action, body: Any) -> Handled | Waiting:  # noqa: ANN401
        """Run an operation; the body is of its action's kind."""
        request = SocketRequest(frame, self.service, caller)
        name = action.operation.name
        args: Any = None

        def read() -> Any:  # noqa: ANN401 - the arguments of whatever operation
            nonlocal args
            if not action.measures:
                self._check_size(frame)
            args = action.read(request, body)
            return args

        def finish(reply: Reply[Any]) -> Handled:
            if reply.problem is not None:
                return _told(frame, reply.problem, args)
            answered = attempt(name, lambda: frames.reply(frame, *action.answer(request, args, reply.value)))
            if answered.value is None:
                return _told(frame, answered.problem or INTERNAL)
            return Handled(answered.value, self._consequence(action, args))

        if name == "subscription_delete" and self.link.leases(body.subscription_id):
            return self._drop_lease(frame, body.subscription_id)
        reply = dispatch(self.service, action.operation, caller, read)
        if isinstance(reply.value, Vigil):
            return Waiting(reply.value, name, finish)
        return finish(reply)

    def _check_size(self, frame: Frame) -> None:
        """Raise Invalid for a body that is larger than any that makes sense."""
        limit = self.service.settings.limits.max_queue_metadata
        if memoryview(frame.body).nbytes > limit:
            raise Invalid(f"The body is too large. The max is {limit} bytes.")

    def _consequence(self, action: Action, args: Any) -> Callable[[], None] | None:  # noqa: ANN401 - see read
        """Return what an operation that was done changes about this connection."""
        match action.operation.name:
            case "subscription_delete":
                return partial(self.link.forget, args.subscription_id)
            case "message_delete" if args.claim_id:
                return partial(self.link.settled, args.claim_id)
            case "claim_delete":
                return partial(self.link.settled, args.claim_id)
            case "claim_update":
                seconds = args.ttl or self.service.settings.limits.default_claim_ttl
                return partial(self.link.renewed, args.claim_id, seconds)
        return None

    # --- who speaks

    def _authenticate(self, frame: Frame) -> Handled:
        if self._trusting:
            self._keystone_token = keystone_token_of(_texts(frame).get)
            return Handled(frames.reply(frame, 200, {"message": "Authentified."}, bare=True))
        headers = checked_headers(frame, _Credentials)
        # Until it is known who speaks, nobody does; what is pushed meanwhile still depends on the old token.
        self._identity = None
        reply = attempt("authenticate", lambda: self._strategy.identify({"X-Auth-Token": headers.token}.get))
        if reply.value is None:
            status = reply.problem.status if reply.problem else INTERNAL.status
            return Handled(frames.reply(frame, status, {"error": "Authentication failed."}, bare=True))
        with self._lock:
            self._identity, self._token, self._checked = reply.value, headers.token, self.service.clock()
        return Handled(
            frames.reply(frame, 200, {"message": "Authentified."}, bare=True),
            partial(self.link.authenticated, reply.value),
        )

    def _caller(self, frame: Frame, headers: Headers, action: Action | None, body: Any) -> Caller:  # noqa: ANN401
        """Return who asks; raises NotAuthentified, and what is wrong with the headers."""
        named = _texts(frame)
        if self._trusting:
            identity = self._strategy.identify(named.get)
        else:
            identity = self._known() or self._signed(frame, headers, action, body)
        if identity.project is not None and identity.project != headers.project:
            raise NotAuthentified
        project = project_of(identity, {**named, "X-Project-ID": headers.project or _NOBODY}.get)
        client_id = client_id_of(named.get, self.service.settings.wire)
        token = keystone_token_of(named.get) or self._keystone_token
        return Caller(project=project, client_id=client_id, role=identity.role, keystone_token=token)

    def _known(self) -> Identity | None:
        """Return who has authenticated, if that counts still; raises StoreError."""
        if self._identity is not None:
            now = self.service.clock()
            if now >= self._checked + _FRESH:
                self.still_valid()
            elif self._identity.expires is not None and self._identity.expires <= now:
                return None
        return self._identity

    def _signed(self, frame: Frame, headers: Headers, action: Action | None, body: Any) -> Identity:  # noqa: ANN401
        """Verify a pre-signed request: it opens one queue's messages, and authenticates nothing else."""
        if action is None or action.method is None or not headers.project:
            raise NotAuthentified
        try:
            shown = msgspec.convert(frame.headers, _Signed)
            self.service.signer.verify(
                SignedUrl(
                    project=headers.project,
                    paths=shown.paths,
                    methods=shown.methods,
                    expires=shown.expires,
                    signature=shown.signature,
                ),
                method=action.method,
                path=f"/v2/queues/{body.queue_name}/messages",
                now=datetime.fromtimestamp(self.service.clock() / 1000, UTC),
            )
        except (msgspec.ValidationError, BadSignature) as error:
            raise NotAuthentified from error
        return Identity(project=headers.project, role=Role.MEMBER)

    # --- subscriptions of this connection

    def _subscribe(self, frame: Frame, caller: Caller, body: WishBody) -> Handled:
        """Subscribe this connection to a queue."""
        self.service.access.check("subscription:create", caller)
        self._check_room()
        given = {
            name: value for name in ("ttl", "options") if (value := getattr(body, name)) is not msgspec.UNSET
        }
        terms = self.service.subscriptions.read(given)
        options = terms.options or {}
        if options.get("mode") == "claim":
            return self._lease(frame, caller, body)
        if options.get("mode", "push") != "push":
            raise Invalid("The option mode must be push or claim.")
        return self._follow(frame, body, terms, resumable=bool(options.get("sequence")), caller=caller)

    def _check_room(self) -> None:
        """Raise Invalid where the connection has subscribed too often."""
        if self.link.room <= 0:
            raise Invalid("This connection has as many subscriptions as it may have.")

    def _follow(
        self, frame: Frame, body: WishBody, terms: Terms, *, resumable: bool, caller: Caller
    ) -> Handled:
        address = address_of(caller, body.queue_name)
        after = self.service.pushes.end(address)
        self.link.check_in()
        push = Push(node=self.link.node_id, connection=self.link.id, after=after.place, resumable=resumable)
        wish = replace(terms, subscriber=self.link.uri)
        subscription = self.service.subscriptions.create(address, wish, push=push).subscription
        return Handled(
            frames.reply(frame, *created(body.queue_name, subscription.id)),
            partial(self.link.follow, subscription, after, binary=frame.binary),
        )

    def _lease(self, frame: Frame, caller: Caller, body: WishBody) -> Handled:
        address_of(caller, body.queue_name)
        self.service.access.check("claims:create", caller)
        options = body.options if isinstance(body.options, dict) else {}
        try:
            mode = msgspec.convert(options, ClaimMode)
        except msgspec.ValidationError as error:
            raise Invalid(f"The options of a subscription in claim mode are wrong: {error}.") from error
        check_range("credit", mode.credit, 1, _MOST_CREDIT)
        self.service.claims.check(ttl=mode.claim_ttl, grace=mode.claim_grace)
        wish = LeaseWish(
            id=new_claim_id()[:24],
            caller=caller,
            queue_name=body.queue_name,
            mode=mode,
            binary=frame.binary,
        )
        return Handled(
            frames.reply(frame, *created(body.queue_name, wish.id)), partial(self.link.lease, wish)
        )

    def _drop_lease(self, frame: Frame, subscription_id: str) -> Handled:
        """Remove a subscription that leases."""
        return Handled(
            frames.reply(frame, *removed(subscription_id)), partial(self.link.forget, subscription_id)
        )

    def _resume(self, frame: Frame, caller: Caller, body: _ResumeBody) -> Handled:
        """Go on with a subscription that an earlier connection had, behind what it saw last."""
        self.service.access.check("subscription:create", caller)
        address = address_of(caller, body.queue_name)
        self._check_room()
        subscription = self.service.subscriptions.get(address, body.subscription_id)
        if subscription.push is None or not subscription.push.resumable:
            raise Invalid("Only a subscription with the option sequence can be resumed.")
        end = self.service.pushes.end(address)
        base = subscription.push.after
        check_range("sequence", body.sequence, 0, end.place - base)
        after = replace(end, place=base + body.sequence)
        page = self.service.pushes.read(address, after)
        first = page[0].position.place if page else end.place + 1
        gap = None
        if first > after.place + 1:
            gap = {"from": body.sequence + 1, "to": first - 1 - base}
            after = replace(end, place=first - 1)
        attached = self.service.subscriptions.attach(
            address, subscription.id, node=self.link.node_id, connection=self.link.id
        )
        return Handled(
            frames.reply(
                frame,
                200,
                {"subscription_id": subscription.id, "sequence": after.place - base, "gap": gap},
            ),
            partial(self.link.follow, attached, after, binary=frame.binary),
            # Where it is this connection that had it, nothing of before may come between.
            partial(self.link.forget, subscription.id),
        )


class NotAuthentified(Unauthenticated):
    """Not authentified."""

    code = "not-authentified"


class _Credentials(KnownHeaders, kw_only=True, rename={"project": "X-Project-ID", "token": "X-Auth-Token"}):
    project: str
    token: str


class _Signed(
    msgspec.Struct,
    rename={
        "signature": "URL-Signature",
        "expires": "URL-Expires",
        "methods": "URL-Methods",
        "paths": "URL-Paths",
    },
):
    signature: str
    expires: str
    methods: list[str]
    paths: list[str]


class _ResumeBody(msgspec.Struct):
    queue_name: str
    subscription_id: str
    sequence: int


class Own(NamedTuple):
    """How something is asked for that is about this connection, and is no operation of the service."""

    body: type[Any]
    run: Callable[[Session, Frame, Caller, Any], Handled]


_SUBSCRIBE = Own(WishBody, Session._subscribe)
_OWN: Mapping[str, Own] = {"subscription_resume": Own(_ResumeBody, Session._resume)}

#: Actions that stand in no table of operations.
CONNECTION_ACTIONS = ("authenticate", *_OWN)


def _texts(frame: Frame) -> Mapping[str, str]:
    """Return those headers that are texts."""
    return {name: value for name, value in (frame.headers or {}).items() if isinstance(value, str)}


def _refused(frame: Frame, refusal: FrameRefused) -> Handled:
    return Handled(frames.reply(frame, 400, {"error": str(refusal)}))


def _told(frame: Frame, problem: Problem, args: Any = None) -> Handled:  # noqa: ANN401 - of whatever operation
    """Answer what went wrong, in the shape that the protocol has for it."""
    return Handled(frames.reply(frame, *_problem(problem, args)))


def _problem(problem: Problem, args: Any) -> Answer:  # noqa: ANN401 - of whatever operation
    text = problem.description or problem.title
    match problem.code:
        case FrameRefused.code:
            return Answer(problem.status, {"error": text})
        case NotAuthentified.code:
            return Answer(403, {"error": "Not authentified."})
        case SubscriberTaken.code:
            return taken(getattr(args, "queue_name", ""))
        case INTERNAL.code:
            return Answer(problem.status, {"exception": text, "error": "Unexpected error."})
        case ClaimNotHeld.code:
            return Answer(problem.status, {"exception": text, "error": text})
        case ClaimNotFound.code:
            return Answer(
                problem.status, {"exception": text, "error": f"Claim {args.claim_id} does not exist."}
            )
    short = problem.status == 400 or problem.code == MessageNotFound.code
    return Answer(problem.status, {"exception": text, "error": None if short else text})
