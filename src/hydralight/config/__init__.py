"""What a config may say: which code it names, which keys it has, and of which types."""
