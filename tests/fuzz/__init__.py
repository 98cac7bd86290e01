"""Inputs that nobody thought of. Run by ``nox -s fuzz``.

``targets`` says what is fed and what must come of it; ``mutation`` feeds it with what libFuzzer
makes of its seeds, guided by the branches that are reached; ``requests`` asks a running agent by
its OpenAPI description. What once broke a promise lies in ``found/``, and the unit tests feed it
again.
"""
