from hypothesis import settings

from tests import servers

# How long an example takes says something about the machine, not about the code.
settings.register_profile("hermod", deadline=None)
settings.load_profile("hermod")


def pytest_sessionfinish():
    servers.stop_all()
