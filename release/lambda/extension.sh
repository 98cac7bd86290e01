#!/bin/sh
# Lambda knows the extension by this file's name, the agent by that of its own: keep them alike.
exec /opt/clef-agent/clef-agent
