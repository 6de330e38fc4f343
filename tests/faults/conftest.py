"""What the tests of the fault matrix share; each test names its case with ``@pytest.mark.case("F01")``."""
