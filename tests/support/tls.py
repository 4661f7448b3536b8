"""A server over HTTP or HTTPS that answers with what it is sent."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["echoing"]

# A certificate of its own for 127.0.0.1, until the year 2126, and its key, which protects nothing.
_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBfjCCASOgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjAwMTAxMDAwMDAwWhgPMjEyNjAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEVERPE43FhJ3QZu
/2zuEPU2ZsNECupqCmjYWnKOUgs55zYciaK7b+X7KILk0Pzr/8tQDNUZ9XEPIcPF
+lf/RmujZDBiMA8GA1UdEQQIMAaHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAdBgNV
HQ4EFgQUhXf3qw+VXS1jOcXKXD6Jy/4TtDwwHwYDVR0jBBgwFoAUhXf3qw+VXS1j
OcXKXD6Jy/4TtDwwCgYIKoZIzj0EAwIDSQAwRgIhAKtWqSLRXPs2kTrsMeXl28C0
yo0Eex8sgqCLaRxTHtJ7AiEAwjxpEJphpYbKMAh5dv1kiJPD5rS9ZjZV46cn3jU0
Lik=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZ6J6imwvX4UDPOpF
WnEAEscdJILFBaDN5YeBqZoGhZyhRANCAARFRETxONxYSd0Gbv9s7hD1NmbDRArq
agpo2FpyjlILOec2HImiu2/l+yiC5ND86//LUAzVGfVxDyHDxfpX/0Zr
-----END PRIVATE KEY-----
"""


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def echoing(certificate: Path | None = None) -> Iterator[str]:
    """Serve, and give the URL.

    Args:
        certificate: where to write the certificate to be trusted; None for HTTP.
    """
    with _Server(("127.0.0.1", 0), _Echo) as server:
        if certificate is not None:
            certificate.write_text(_CERTIFICATE)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
