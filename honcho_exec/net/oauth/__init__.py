"""OAuth access tokens: the grant, its file, and the endpoint that refreshes it."""
