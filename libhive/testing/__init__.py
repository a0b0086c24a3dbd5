"""The test kit that ships with hyperhive: a real hive in a directory of its own, driven by verbs."""
