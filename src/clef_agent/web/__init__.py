"""One request over http or https at a time, and what may be shown of it."""
