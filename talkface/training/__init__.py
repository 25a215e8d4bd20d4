"""LightningModules (glue: encode, corrupt, predict, loss, log) and callbacks; they import Lightning."""
