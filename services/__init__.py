"""The services of a hive, one package and one process each. None imports another: they exchange messages."""
