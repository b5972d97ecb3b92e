from tests import servers


def pytest_sessionfinish():
    servers.stop_all()
