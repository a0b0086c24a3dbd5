"""HTTP servers of the hive: the dashboard's, the gateway's doors, an agent's page."""
