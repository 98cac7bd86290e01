"""The command line: what prints to a person, and what ends the process.

Empty on purpose: running the agent imports :mod:`clef_agent.cli.run` and must not pay for Typer.
"""
