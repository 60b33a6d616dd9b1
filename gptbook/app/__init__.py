"""The command line (:mod:`gptbook.app.main`), and what chapters use while they run.

Nothing is imported here: a chapter that uses :mod:`gptbook.app.notebook` must not depend on every
command.
"""
