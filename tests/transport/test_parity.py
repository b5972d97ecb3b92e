"""Nothing can be done over one transport only, unless it stands here with the reason."""

from __future__ import annotations

from transport.operations import OPERATIONS
from transport.websocket.actions import actions
from transport.websocket.session import CONNECTION_ACTIONS
from transport.wsgi.routes import ByIds, routes

#: Operations without a route, or without an action, and why. There are none.
REST_ONLY: dict[str, str] = {}
WEBSOCKET_ONLY: dict[str, str] = {}

#: Actions that are no operations of the service, and why.
ABOUT_THE_CONNECTION = {
    "authenticate": "over HTTP every request says who asks",
    "subscription_resume": "over HTTP nothing is pushed, so there is nothing to go on with",
}


def over_rest(*, admin: bool = True, pooling: bool = True) -> set[str]:
    """Return the operations that have a route."""
    found = set()
    for methods in routes(admin=admin, pooling=pooling).values():
        for choice in methods.values():
            endpoints = (choice.with_ids, choice.without) if isinstance(choice, ByIds) else (choice,)
            found |= {endpoint.operation.name for endpoint in endpoints}
    return found


def test_every_operation_has_a_route_and_an_action() -> None:
    assert over_rest() == set(OPERATIONS) - set(WEBSOCKET_ONLY)
    assert set(actions(admin=True, pooling=True)) == set(OPERATIONS) - set(REST_ONLY)


def test_what_is_about_the_connection_is_no_operation() -> None:
    assert set(CONNECTION_ACTIONS) == set(ABOUT_THE_CONNECTION)
    assert not set(CONNECTION_ACTIONS) & set(OPERATIONS)


def test_an_action_is_the_operation_of_its_name() -> None:
    """So it has the access rule, the limits and the errors of the other transport."""
    for name, action in actions(admin=True, pooling=True).items():
        assert action.operation is OPERATIONS[name]


def test_a_route_is_the_operation_of_its_name() -> None:
    for methods in routes(admin=True, pooling=True).values():
        for choice in methods.values():
            for endpoint in (choice.with_ids, choice.without) if isinstance(choice, ByIds) else (choice,):
                assert endpoint.operation is OPERATIONS[endpoint.operation.name]


def test_both_serve_the_same_under_the_same_settings() -> None:
    for admin in (True, False):
        for pooling in (True, False):
            served = set(actions(admin=admin, pooling=pooling))
            assert served == over_rest(admin=admin, pooling=pooling)


def test_no_exception_is_kept_beyond_its_time() -> None:
    assert set(REST_ONLY) <= over_rest()
    assert set(WEBSOCKET_ONLY) <= set(actions(admin=True, pooling=True))
    assert not set(REST_ONLY) & set(actions(admin=True, pooling=True))
    assert not set(WEBSOCKET_ONLY) & over_rest()
