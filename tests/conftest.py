"""Fixtures and reports that several test files share; shapes in annotations are checked."""

from jaxtyping import install_import_hook

from tests.tensor_modules import SHAPED_MODULES

# Before any test imports them: from here on a call with a wrong shape or dtype fails.
install_import_hook(list(SHAPED_MODULES), "beartype.beartype")

pytest_plugins = ["tests.browser", "tests.tokenizer_fixtures"]
