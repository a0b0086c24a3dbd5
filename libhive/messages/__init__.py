"""The vocabulary of the hive, one module per service. Vocabulary only: no behaviour."""
