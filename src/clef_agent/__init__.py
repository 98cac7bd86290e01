"""clef-agent: serves the secrets of one encrypted artifact to the application beside it."""

__version__ = "0.1.0"
