"""What was last accepted: in memory, and as ciphertext on disk."""
