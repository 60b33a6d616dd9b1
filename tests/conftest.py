"""Fixtures and reports that several test files share."""

pytest_plugins = ["tests.browser", "tests.tokenizer_fixtures"]
