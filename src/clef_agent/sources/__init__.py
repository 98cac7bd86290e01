"""Places an artifact can lie."""
