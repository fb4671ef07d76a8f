"""Training and measuring zero-shot networks: the two-stage protocol of the AVCA benchmark."""
