"""KEKs, secrets and key rings in HashiCorp Vault or OpenBao."""
