"""Load scenarios: arrival of queries, clients, and their figures."""
