"""From the outbox to Honcho: once, in order, with retries."""
