"""Text from people, models and memory: cleaned, redacted, validated and made harmless."""
