"""What nbval compares when it runs the notebooks."""


def pytest_collectstart(collector):
    # Progress bars and one-off notices (matplotlib builds its font cache) come on stderr. They
    # depend on the machine and the day; the committed notebooks have none.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
