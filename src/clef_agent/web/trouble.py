"""What kept an answer from coming, in words of our own: an HTTP library's text holds URLs."""

from __future__ import annotations

import os
import socket
import ssl


def network_words(exc: BaseException) -> str | None:
    """What the network or TLS did, from the error that is at the bottom of ``exc``, if one is."""
    link: BaseException | None = exc
    while link is not None:
        if isinstance(link, socket.gaierror):
            return "the host's name cannot be resolved"
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return f"TLS failed ({link.reason or type(link).__name__})"
        if isinstance(link, OSError) and link.errno:
            return os.strerror(link.errno)
        if isinstance(link, BaseExceptionGroup):  # one for each of the host's addresses
            link = link.exceptions[0]
        else:
            link = link.__cause__ or link.__context__
    return None
