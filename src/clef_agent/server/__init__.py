"""The HTTP face: what is asked, who may ask, and the sockets it comes in by."""
