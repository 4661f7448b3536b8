"""HTTP with deadlines: connections, retries, circuit breaker, and what a failure means."""
