"""The embedded Honcho over a socket, for any Honcho client, and a page on which a person sees what is remembered."""
