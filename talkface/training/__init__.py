"""LightningModules (glue: encode, corrupt, predict, loss, log) and callbacks. Importing them imports Lightning."""
